"""From one media file to the frames of its bucket.

Time is resampled to the base's frame rate, frames are scaled to cover the bucket, and what juts out is cropped equally
on both sides. A file that already has the bucket's size and rate passes through unchanged.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from likeness.errors import MediaError
from likeness.media import read_image, resample_video, resize
from likeness.training.files import tar
from likeness.training.files.buckets import Bucket, BucketGrid, find_bucket
from likeness.training.files.sample import VIDEO_SUFFIXES


@dataclass(frozen=True, kw_only=True, slots=True)
class CropTransform:
    """Where a pixel of the file lies in the frames: multiplied by the scale, less the offset.

    Coordinates are continuous; pixel i covers the interval from i to i + 1.
    """

    scale_x: float
    scale_y: float
    left_px: int
    """Columns that were cut on the left, after scaling."""
    top_px: int
    """Rows that were cut at the top, after scaling."""

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map points (x, y) of the file to the frames.

        Shapes:
            points: (..., 2)
            returns: (..., 2)
        """
        return points * np.array([self.scale_x, self.scale_y]) - np.array([self.left_px, self.top_px])

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Map points (x, y) of the frames to the file.

        Shapes:
            points: (..., 2)
            returns: (..., 2)
        """
        return (points + np.array([self.left_px, self.top_px])) / np.array([self.scale_x, self.scale_y])


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFrames:
    """The frames of a sample.

    Shapes:
        frames: (frames, height, width, 3) uint8, the size of `bucket`
    """

    frames: np.ndarray
    bucket: Bucket
    transform: CropTransform
    source_size_px: tuple[int, int]
    """(height, width) of the file."""

    def pixels(self) -> Tensor:
        """The frames as a model takes them: (frames, 3, height, width), float32 in [-1, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self.frames)).movedim(-1, 1).float().div_(127.5).sub_(1.0)


def read_media(path: Path, grid: BucketGrid, *, fps: float) -> MediaFrames:
    """Read a picture or video as the frames of the bucket that suits it.

    Of a video longer than the longest bucket the beginning is used: cut long videos into clips, one caption each.

    Args:
        path: A file, or a member of a tar file (`files.tar`).
        grid: The buckets of the recipe.
        fps: The base's frame rate.

    Raises:
        MediaError: The file cannot be decoded, or a video is too short.
    """
    frames, is_video = read_frames(path, max_frames=grid.lengths[-1], fps=fps)
    height_px, width_px = frames.shape[1:3]
    try:
        bucket = find_bucket(grid, frames=len(frames), height_px=height_px, width_px=width_px, is_video=is_video)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    cropped, transform = resize_and_crop(frames[: bucket.frames], bucket)
    return MediaFrames(frames=cropped, bucket=bucket, transform=transform, source_size_px=(height_px, width_px))


def read_frames(path: Path, *, max_frames: int, fps: float) -> tuple[np.ndarray, bool]:
    """Read a file at its own size: (frames, height, width, 3) uint8, and whether it is a video.

    Raises:
        MediaError: The file cannot be decoded.
    """
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    with tar.opened(path) as file:
        if is_video:
            return resample_video(file, fps=fps, max_frames=max_frames)[0], True
        return read_image(file)[None], False


def resize_and_crop(frames: np.ndarray, bucket: Bucket) -> tuple[np.ndarray, CropTransform]:
    """Scale frames to cover a bucket, and crop the middle.

    Shapes:
        frames: (frames, height, width, 3) uint8, of any size
        returns: (frames, height, width, 3) uint8, of the bucket's size; and the transform
    """
    height_px, width_px = frames.shape[1:3]
    scale = max(bucket.height_px / height_px, bucket.width_px / width_px)
    # Rounding may fall below the bucket by one pixel.
    scaled_height_px = max(bucket.height_px, round(height_px * scale))
    scaled_width_px = max(bucket.width_px, round(width_px * scale))
    top_px = (scaled_height_px - bucket.height_px) // 2
    left_px = (scaled_width_px - bucket.width_px) // 2
    cropped = np.empty((len(frames), bucket.height_px, bucket.width_px, 3), np.uint8)
    rows, columns = slice(top_px, top_px + bucket.height_px), slice(left_px, left_px + bucket.width_px)
    for index, frame in enumerate(frames):
        cropped[index] = resize(frame, scaled_width_px, scaled_height_px)[rows, columns]
    transform = CropTransform(
        scale_x=scaled_width_px / width_px, scale_y=scaled_height_px / height_px, left_px=left_px, top_px=top_px
    )
    return cropped, transform
