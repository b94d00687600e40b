"""Opens containers of videos, and checks and converts their frames: what all readers of videos share."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from likeness.errors import LikenessError, MediaError
from likeness.media.guard import check_media_file, is_gif_truncated, matroska_bytes

MAX_FRAME_PIXELS = 36_000_000
"""Largest video frame that is decoded; one of 8K has 35 megapixels."""
_DEMUXERS = {"MP4": "mov", "Matroska": "matroska", "GIF": "gif"}
_MAX_MISSING_SHARE = 0.05
"""Largest share of frames or duration that may be missing; otherwise the file counts as truncated."""
_FPS_TOLERANCE = 0.02
"""Largest relative difference between the stated and the measured frame rate before the measured one is used."""


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Turn errors of FFmpeg and PyAV into `MediaError`."""
    try:
        yield
    except LikenessError:
        raise
    except MemoryError as error:
        raise MediaError(f"{path} does not fit in memory. Cut it, or scale it down.") from error
    except (
        FFmpegError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        raise MediaError(damage_message(path, str(error))) from error


def open_container(path: Path) -> InputContainer:
    """Open a video with the demuxer of its first bytes.

    Raises:
        MediaError: It is not an mp4, mov, mkv, webm or gif file.
    """
    kind, name = check_media_file(path, expected="a video")
    if kind == "picture" and name not in _DEMUXERS:
        raise MediaError(f"{path} is a picture ({name}), a video is needed. Use an mp4, mov, mkv, webm or gif file.")
    if name not in _DEMUXERS:
        raise MediaError(f"{path} is not a video that is read here. Use an mp4, mov, mkv, webm or gif file.")
    # The demuxer is forced, so that FFmpeg cannot be made to open a playlist or network format. Tags that are not UTF-8
    # are accepted.
    return av.open(str(path), "r", format=_DEMUXERS[name], metadata_errors="surrogateescape")


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The first picture track.

    Raises:
        MediaError: There is none, its codec is unknown, or its frames are too large.
    """
    if not container.streams.video:
        raise MediaError(f"{path} has no picture track: it is sound alone, or damaged or truncated. Use another file.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError(damage_message(path, "its codec is not known"))
    check_pixels(path, stream.width, stream.height)
    # Frames may be larger than the header says: FFmpeg refuses those before it allocates memory.
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse frames above `MAX_FRAME_PIXELS`."""
    if width * height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"{path} is too large ({width} x {height} pixels); at most {MAX_FRAME_PIXELS // 1_000_000} megapixels a "
            "frame are read. Scale it down."
        )


def check_frame(path: Path, frame: VideoFrame, number: int) -> None:
    """Refuse a frame that is corrupt or too large; `number` counts from 1."""
    if frame.is_corrupt:
        raise MediaError(damage_message(path, f"frame {number} is corrupt"))
    check_pixels(path, frame.width, frame.height)


def header_fps(stream: VideoStream) -> float:
    """The rate that a file states; 0 if it states none."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def frame_rate(times: list[float | None], stated_fps: float) -> float:
    """The stated rate, unless frame times differ from it: headers of variable-rate videos are often wrong."""
    known = [time for time in times if time is not None]
    if len(known) < max(2, len(times)) or not max(known) > min(known):
        return stated_fps
    measured_fps = (len(known) - 1) / (max(known) - min(known))
    return stated_fps if abs(measured_fps - stated_fps) <= _FPS_TOLERANCE * stated_fps else measured_fps


def check_complete(path: Path, container: InputContainer, stream: VideoStream, times: list[float | None]) -> None:
    """Refuse a truncated file: decoders stop at its end without an error, and only its beginning would be measured."""
    size_bytes = path.stat().st_size
    if (stated_bytes := matroska_bytes(path)) is not None and size_bytes < stated_bytes:
        raise MediaError(damage_message(path, f"{size_bytes} of {stated_bytes} bytes are here"))
    if is_gif_truncated(path):
        raise MediaError(damage_message(path, "its last block is missing"))
    if len(times) >= stream.frames - max(1.0, _MAX_MISSING_SHARE * stream.frames) and stream.frames:
        return
    # Edit lists of phones hide frames, and Matroska has no frame count, so the duration decides. Sound may be longer
    # than the pictures, so Matroska with sound is checked by its bytes only.
    if not container.duration or (not stream.frames and len(container.streams) > 1):
        return
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return
    frame_period_s = 1 / float(stream.average_rate or stream.guessed_rate or 1)
    longest_gap_s = max((later - time for time, later in pairwise(known)), default=frame_period_s)
    end_s = known[-1] + longest_gap_s if known else 0.0
    duration_s = container.duration / av.time_base
    if end_s < (1 - _MAX_MISSING_SHARE) * duration_s:
        raise MediaError(damage_message(path, f"pictures end after {end_s:.1f} of {duration_s:.1f} s"))


def to_rgb(path: Path, frame: VideoFrame, number: int) -> np.ndarray:
    """Check a frame, and apply the rotation that phones store in the file (degrees, counterclockwise)."""
    check_frame(path, frame, number)
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def damage_message(path: Path, reason: str) -> str:
    """The message of a `MediaError` on a damaged file."""
    return f"{path} is a damaged or truncated video ({reason}). Copy or download it again."
