"""Writes H.264 in mp4, reads mp4, Matroska and GIF. Equal frames give byte-identical files."""

import json
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

from likeness.errors import MediaError
from likeness.files import write_atomically
from likeness.media.decoding import (
    check_complete,
    check_frame,
    frame_rate,
    header_fps,
    media_errors,
    open_container,
    to_rgb,
    video_stream,
)
from likeness.media.guard import check_media_file

logger = logging.getLogger(__name__)

MAX_VIDEO_BYTES = 4_000_000_000
"""Largest memory for the decoded frames of one video."""
_FPS_DENOMINATOR_LIMIT = 1001
_BT601 = 6
"""FFmpeg's default color matrix from RGB to YUV."""


def write_video(path: str | Path, frames: np.ndarray, fps: float, metadata: dict[str, Any] | None = None) -> None:
    """Write (frames, height, width, 3) uint8 as H.264, atomically. Parent folders are created; odd sizes are padded.

    `metadata` is stored as JSON in the file's `comment` tag.

    Raises:
        MediaError: the frames have another shape or dtype, or the suffix is not .mp4.
        FileWriteError: the file cannot be written.
    """
    path = Path(path)
    check_video_path(path)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(f"Frames are {frames.dtype} {frames.shape}; uint8 (frames, height, width, 3) is needed.")
    if not fps > 0:
        raise MediaError(f"`fps` is {fps}; a number above 0 is needed.")
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with write_atomically(path) as draft:
        _encode(draft, frames, Fraction(fps).limit_denominator(_FPS_DENOMINATOR_LIMIT), metadata)


def check_video_path(path: Path) -> None:
    """Refuse a path that `write_video` cannot write to, before frames are generated.

    Raises:
        MediaError: the suffix is not .mp4, or a folder has that name.
    """
    if path.suffix.lower() != ".mp4":
        raise MediaError(f"{path} cannot be written as video: its suffix is {path.suffix or 'missing'}. Use .mp4.")
    if path.is_dir():
        raise MediaError(f"{path} cannot be written as video: it is a folder. Name a file inside it.")


def read_video(path: str | Path, *, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Read a video as upright RGB frames.

    Returns:
        (frames, height, width, 3) uint8, and frames per second (the mean of a variable rate).

    Raises:
        MediaError: not an mp4, mov, mkv, webm or gif video, damaged, truncated, or larger than `MAX_VIDEO_BYTES`.
    """
    path = Path(path)
    frames = _FrameBuffer(path)
    times: list[float | None] = []
    with media_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        for frame in container.decode(stream):
            frames.append(to_rgb(path, frame, len(times) + 1))
            times.append(frame.time)
            if len(times) == max_frames:
                break
        fps = frame_rate(times, header_fps(stream))
        if len(times) != max_frames:
            check_complete(path, container, stream, times)
    if not times or fps <= 0:
        raise MediaError(f"{path} holds no video frames. Use another video.")
    return frames.array(), fps


def resample_video(path: str | Path, *, fps: float, max_frames: int) -> tuple[np.ndarray, float]:
    """Read the beginning of a video at another frame rate: for each moment k / fps, the frame nearest in time.

    Frames are repeated where the video has a lower rate. Only frames that are used are converted, and decoding stops
    after the last one, so a long video costs no more than its beginning.

    Args:
        path: As in `read_video`.
        fps: Frame rate of the result.
        max_frames: Largest number of frames; a shorter video gives as many as its duration holds.

    Returns:
        (frames, height, width, 3) uint8, and the duration in seconds that was read, counted from the first frame.

    Raises:
        MediaError: as `read_video`.
    """
    path = Path(path)
    if not fps > 0 or max_frames < 1:
        raise MediaError(f"`fps` is {fps} and `max_frames` {max_frames}; both must be above 0.")
    with media_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        picker = _NearestFrames(path, fps, max_frames, header_fps(stream))
        times: list[float | None] = []
        for number, frame in enumerate(container.decode(stream), start=1):
            times.append(frame.time)
            if picker.add(frame, number):
                break
        else:
            check_complete(path, container, stream, times)
            picker.finish(frame_rate(times, header_fps(stream)))
    if not picker.count:
        raise MediaError(f"{path} holds no video frames. Use another video.")
    return picker.frames.array(), picker.duration_s


class _NearestFrames:
    """Chooses, for each moment k / fps after the first frame, the frame nearest in time; of two, the earlier."""

    def __init__(self, path: Path, fps: float, max_frames: int, stated_fps: float) -> None:
        self.frames = _FrameBuffer(path)
        self.count = 0
        self.duration_s = 0.0
        self._path, self._fps, self._max_frames = path, fps, max_frames
        self._stated_fps = stated_fps if stated_fps > 0 else fps
        self._start_s: float | None = None
        self._last: tuple[VideoFrame, float, int] | None = None
        self._pixels: np.ndarray | None = None

    def add(self, frame: VideoFrame, number: int) -> bool:
        """Take the next decoded frame; True if no more are needed."""
        check_frame(self._path, frame, number)
        time_s = frame.time if frame.time is not None else (number - 1) / self._stated_fps
        self._start_s = time_s if self._start_s is None else self._start_s
        time_s -= self._start_s
        while self._last is not None and self.count < self._max_frames:
            target_s = self.count / self._fps
            # A tolerance of a microsecond: containers round times, and equal distances must not depend on it.
            if target_s > (self._last[1] + time_s) / 2 + 1e-6:
                break
            self._append(self._last[0], self._last[2])
        self._last, self._pixels, self.duration_s = (frame, time_s, number), None, time_s
        return self.count >= self._max_frames

    def finish(self, source_fps: float) -> None:
        """Fill the moments up to the end of the last frame, which is shown for one period of the source."""
        if self._last is None:
            return
        self.duration_s = self._last[1] + 1 / (source_fps if source_fps > 0 else self._fps)
        # A tenth of a period is left out: a rate of 7.99 measured for 8 must not add a frame.
        while self.count < self._max_frames and self.count + 0.1 < self.duration_s * self._fps:
            self._append(self._last[0], self._last[2])

    def _append(self, frame: VideoFrame, number: int) -> None:
        if self._pixels is None:
            self._pixels = to_rgb(self._path, frame, number)
        self.frames.append(self._pixels)
        self.count += 1


def sample_video(path: str | Path, num_frames: int) -> tuple[np.ndarray, float]:
    """Read evenly spaced frames of a video of any length, without keeping all of them in memory.

    Args:
        path: As in `read_video`.
        num_frames: Largest number of frames; a long enough video gives at least about half of it.

    Returns:
        (frames, height, width, 3) uint8, and the duration of the video in seconds.

    Raises:
        MediaError: as `read_video`.
    """
    path = Path(path)
    kept: list[tuple[int, np.ndarray]] = []
    times: list[float | None] = []
    step = 1
    with media_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        for number, frame in enumerate(container.decode(stream)):
            times.append(frame.time)
            if number % step:
                check_frame(path, frame, number + 1)
                continue
            kept.append((number, to_rgb(path, frame, number + 1)))
            _check_size(path, kept[0][1], kept[-1][1], number + 1)
            if 2 * len(kept) * kept[0][1].nbytes > MAX_VIDEO_BYTES:  # Twice: stacking copies them.
                raise MediaError(_too_long(path, len(kept)))
            if len(kept) > num_frames:  # The length is known only at the end: double the step, drop every other frame.
                step *= 2
                kept = [(other, pixels) for other, pixels in kept if other % step == 0]
        check_complete(path, container, stream, times)
        fps = frame_rate(times, header_fps(stream))
    if not kept or fps <= 0:
        raise MediaError(f"{path} holds no video frames. Use another video.")
    return np.stack([pixels for _, pixels in kept]), len(times) / fps


def is_video(path: str | Path) -> bool:
    """Whether a file is a video by its first bytes; a GIF counts as a picture.

    Raises:
        MediaError: there is no regular file with at least one byte.
    """
    return check_media_file(Path(path), expected="a picture or a video")[0] == "video"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that `write_video` stored in the file; empty if there are none.

    Raises:
        MediaError: not a readable mp4, mov, mkv, webm or gif file.
    """
    path = Path(path)
    with media_errors(path), open_container(path) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    comment = tags.get("comment", "")
    if not comment.lstrip().startswith("{"):
        return {}  # A comment of another program.
    try:
        record = json.loads(comment)
        json.dumps(record, ensure_ascii=False).encode()  # Fails on a lone surrogate, which cannot be printed.
    except (ValueError, RecursionError) as error:
        logger.warning("The record inside %s cannot be read (%s); the video counts as one without.", path, error)
        return {}
    return record


class _FrameBuffer:
    """A growing array of frames, so that they are never in memory twice.

    Shapes:
        array(): (frames, height, width, 3) uint8
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames = np.empty((0, 0, 0, 3), np.uint8)
        self._count = 0

    def append(self, frame: np.ndarray) -> None:
        """Append one frame.

        Raises:
            MediaError: its size differs from the first frame's, or `MAX_VIDEO_BYTES` is exceeded.
        """
        if self._count:
            _check_size(self._path, self._frames[0], frame, self._count + 1)
        max_frames = MAX_VIDEO_BYTES // frame.nbytes
        if self._count >= max_frames:
            raise MediaError(_too_long(self._path, self._count + 1))
        if self._count == len(self._frames):
            # Where possible, `resize` remaps pages instead of copying.
            self._frames.resize((min(self._count + self._count // 8 + 1, max_frames), *frame.shape), refcheck=False)
        self._frames[self._count] = frame
        self._count += 1

    def array(self) -> np.ndarray:
        self._frames.resize((self._count, *self._frames.shape[1:]), refcheck=False)
        return self._frames


def _encode(path: Path, frames: np.ndarray, rate: Fraction, metadata: dict[str, Any] | None) -> None:
    # Bit-exact flags omit dates and library versions; with several threads x264's output would depend on their number.
    # Without macroblock trees: with them, 1 of 40 to 200 encodings of the same frames differs in its bytes.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        if metadata is not None:
            container.metadata["comment"] = json.dumps(metadata, sort_keys=True)
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.color_primaries = stream.color_trc = stream.colorspace = _BT601
        stream.options = {"crf": "12", "preset": "medium", "flags": "+bitexact", "x264-params": "threads=1:mbtree=0"}
        for picture in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def _check_size(path: Path, first: np.ndarray, frame: np.ndarray, number: int) -> None:
    if frame.shape != first.shape:
        (height, width), (first_height, first_width) = frame.shape[:2], first.shape[:2]
        raise MediaError(
            f"{path} changes its size: frame {number} has {width} x {height} pixels, the first {first_width} x "
            f"{first_height}. Convert it to one size."
        )


def _too_long(path: Path, count: int) -> str:
    return (
        f"{path} has too many frames: the first {count} already take more than {MAX_VIDEO_BYTES // 10**9} GB. "
        "Cut it, or read fewer with `max_frames`."
    )
