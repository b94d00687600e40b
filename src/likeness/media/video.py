"""Video: H.264 in mp4 out; mp4, Matroska and GIF in. The same frames give the same bytes."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from likeness.errors import LikenessError, MediaError
from likeness.files import write_atomically
from likeness.media.guard import inspect, is_gif_truncated, matroska_bytes

logger = logging.getLogger(__name__)

MAX_FRAME_PIXELS = 36_000_000
"""Largest video frame that is decoded; one of 8K has 35 megapixels."""
MAX_VIDEO_BYTES = 4_000_000_000
"""Most memory that the frames of one video may take while it is read."""
_DEMUXERS = {"MP4": "mov", "Matroska": "matroska", "GIF": "gif"}
_FPS_DENOMINATOR_LIMIT = 1001
_MOST_MISSING = 0.05
"""Share of frames or of time that may be missing; where more is, the file was cut."""
_STEADY = 0.02
"""How far frames' times may lie from the rate that the file names, before the times are believed instead."""
_BT601 = 6
"""The color matrix by which FFmpeg turns RGB into YUV where nothing else is said."""


def write_video(path: str | Path, frames: np.ndarray, fps: float, metadata: dict[str, Any] | None = None) -> None:
    """Write (frames, height, width, 3) uint8 as H.264. Parent folders are made; odd sizes gain one edge pixel.

    `metadata` lies as JSON in the `comment` tag of the file. The file appears only once it is whole.

    Raises:
        MediaError: the frames are no video, or the suffix is another.
        FileWriteError: the disk refuses.
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
    """Refuse what `write_video` could not write to, before frames are made for it.

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
        (frames, height, width, 3) uint8, and frames per second; on average, where the rate varies.

    Raises:
        MediaError: no mp4, mov, mkv, webm or gif video, damaged, cut short, or more than fits in `MAX_VIDEO_BYTES`.
    """
    path = Path(path)
    frames = _FrameBuffer(path)
    times: list[float | None] = []
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        for frame in container.decode(stream):
            frames.append(_to_rgb(path, frame, len(times) + 1))
            times.append(frame.time)
            if len(times) == max_frames:
                break
        fps = _rate(times, _named_fps(stream))
        if len(times) != max_frames:
            _check_whole(path, container, stream, times)
    if not times or fps <= 0:
        raise MediaError(f"{path} holds no video frames. Use another video.")
    return frames.array(), fps


def sample_video(path: str | Path, num_frames: int) -> tuple[np.ndarray, float]:
    """Read frames spread evenly over a video of any length, in memory for few of them.

    Args:
        path: As `read_video` takes it.
        num_frames: How many at most; about half as many at least, where the video has them.

    Returns:
        (frames, height, width, 3) uint8, and the seconds from the first frame of the video to the end of the last.

    Raises:
        MediaError: as `read_video`.
    """
    path = Path(path)
    kept: list[tuple[int, np.ndarray]] = []
    times: list[float | None] = []
    step = 1
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        for number, frame in enumerate(container.decode(stream)):
            times.append(frame.time)
            if number % step:
                _check_frame(path, frame, number + 1)
                continue
            kept.append((number, _to_rgb(path, frame, number + 1)))
            _check_size(path, kept[0][1], kept[-1][1], number + 1)
            if 2 * len(kept) * kept[0][1].nbytes > MAX_VIDEO_BYTES:  # They are copied once, into one array.
                raise MediaError(_too_long(path, len(kept)))
            if len(kept) > num_frames:  # How long it is, is known at its end: every other one goes.
                step *= 2
                kept = [(other, pixels) for other, pixels in kept if other % step == 0]
        _check_whole(path, container, stream, times)
        fps = _rate(times, _named_fps(stream))
    if not kept or fps <= 0:
        raise MediaError(f"{path} holds no video frames. Use another video.")
    return np.stack([pixels for _, pixels in kept]), len(times) / fps


def is_video(path: str | Path) -> bool:
    """Whether a file is a video by its first bytes; a GIF is a picture.

    Raises:
        MediaError: there is no regular file with at least one byte.
    """
    return inspect(Path(path), expected="a picture or a video")[0] == "video"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The record that `write_video` put into the file; empty where there is none.

    Raises:
        MediaError: no readable mp4, mov, mkv, webm or gif file.
    """
    path = Path(path)
    with _decoding(path), _open(path) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    comment = tags.get("comment", "")
    if not comment.lstrip().startswith("{"):
        return {}  # What other programs write there.
    try:
        record = json.loads(comment)
        json.dumps(record, ensure_ascii=False).encode()  # Half a surrogate pair cannot be written or printed.
    except (ValueError, RecursionError) as error:
        logger.warning("The record inside %s cannot be read (%s); the video counts as one without.", path, error)
        return {}
    return record


class _FrameBuffer:
    """Frames of one video in one array that grows, so that they never lie in memory twice.

    Shapes:
        array(): (frames, height, width, 3) uint8
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames = np.empty((0, 0, 0, 3), np.uint8)
        self._count = 0

    def append(self, frame: np.ndarray) -> None:
        """Add one frame.

        Raises:
            MediaError: it has another size than the first, or does not fit in `MAX_VIDEO_BYTES`.
        """
        if self._count:
            _check_size(self._path, self._frames[0], frame, self._count + 1)
        most = MAX_VIDEO_BYTES // frame.nbytes
        if self._count >= most:
            raise MediaError(_too_long(self._path, self._count + 1))
        if self._count == len(self._frames):
            # `resize` moves pages where the system can, and copies nothing then.
            self._frames.resize((min(self._count + self._count // 8 + 1, most), *frame.shape), refcheck=False)
        self._frames[self._count] = frame
        self._count += 1

    def array(self) -> np.ndarray:
        self._frames.resize((self._count, *self._frames.shape[1:]), refcheck=False)
        return self._frames


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Whatever FFmpeg and PyAV find wrong with a file is a `MediaError`."""
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
        raise MediaError(_damaged(path, str(error))) from error


def _encode(path: Path, frames: np.ndarray, rate: Fraction, metadata: dict[str, Any] | None) -> None:
    # Bit-exact flags leave out dates and library versions; one thread, because x264 decides by thread otherwise.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        if metadata is not None:
            container.metadata["comment"] = json.dumps(metadata, sort_keys=True)
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.color_primaries = stream.color_trc = stream.colorspace = _BT601
        stream.options = {"crf": "12", "preset": "medium", "flags": "+bitexact", "x264-params": "threads=1"}
        for picture in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def _open(path: Path) -> InputContainer:
    kind, name = inspect(path, expected="a video")
    if kind == "picture" and name not in _DEMUXERS:
        raise MediaError(f"{path} is a picture ({name}), a video is needed. Use an mp4, mov, mkv, webm or gif file.")
    if name not in _DEMUXERS:
        raise MediaError(f"{path} is not a video that is read here. Use an mp4, mov, mkv, webm or gif file.")
    # The demuxer is forced, so that no file can talk FFmpeg into a playlist or network format. Tags in another encoding
    # than UTF-8 are no damage.
    return av.open(str(path), "r", format=_DEMUXERS[name], metadata_errors="surrogateescape")


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise MediaError(f"{path} has no picture track: it is sound alone, or damaged or truncated. Use another file.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError(_damaged(path, "its codec is not known"))
    _check_pixels(path, stream.width, stream.height)
    # The size in the head binds no frame: FFmpeg refuses larger ones before it takes memory for them.
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"{path} is too large ({width} x {height} pixels); at most {MAX_FRAME_PIXELS // 1_000_000} megapixels a frame "
            "are read. Scale it down."
        )


def _check_frame(path: Path, frame: VideoFrame, number: int) -> None:
    if frame.is_corrupt:
        raise MediaError(_damaged(path, f"frame {number} is corrupt"))
    _check_pixels(path, frame.width, frame.height)


def _check_size(path: Path, first: np.ndarray, frame: np.ndarray, number: int) -> None:
    if frame.shape != first.shape:
        (height, width), (first_height, first_width) = frame.shape[:2], first.shape[:2]
        raise MediaError(
            f"{path} changes its size: frame {number} has {width} x {height} pixels, the first {first_width} x {first_height}. "
            "Convert it to one size."
        )


def _named_fps(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _rate(times: list[float | None], named_fps: float) -> float:
    """The named rate, unless the times of the frames say otherwise: headers of variable rates are often wrong."""
    known = [time for time in times if time is not None]
    if len(known) < max(2, len(times)) or not max(known) > min(known):
        return named_fps
    measured_fps = (len(known) - 1) / (max(known) - min(known))
    return named_fps if abs(measured_fps - named_fps) <= _STEADY * named_fps else measured_fps


def _check_whole(path: Path, container: InputContainer, stream: VideoStream, times: list[float | None]) -> None:
    """Refuse a file that was cut: decoders end quietly where it ends, and figures would be those of its beginning."""
    size_bytes = path.stat().st_size
    if (told_bytes := matroska_bytes(path)) is not None and size_bytes < told_bytes:
        raise MediaError(_damaged(path, f"{size_bytes} of {told_bytes} bytes are here"))
    if is_gif_truncated(path):
        raise MediaError(_damaged(path, "its last block is missing"))
    if len(times) >= stream.frames - max(1.0, _MOST_MISSING * stream.frames) and stream.frames:
        return
    # Phones trim by edit lists, which hide frames, and Matroska counts none; so what ends too early in time was cut. Sound
    # may be longer than pictures: Matroska with sound is judged by its bytes alone.
    if not container.duration or (not stream.frames and len(container.streams) > 1):
        return
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return
    one_s = 1 / float(stream.average_rate or stream.guessed_rate or 1)
    longest_s = max((later - time for time, later in pairwise(known)), default=one_s)
    end_s = known[-1] + longest_s if known else 0.0
    duration_s = container.duration / av.time_base
    if end_s < (1 - _MOST_MISSING) * duration_s:
        raise MediaError(_damaged(path, f"pictures end after {end_s:.1f} of {duration_s:.1f} s"))


def _to_rgb(path: Path, frame: VideoFrame, number: int) -> np.ndarray:
    """Check a frame, and apply the turn that phones note in the file instead of turning the pixels (degrees, to the left)."""
    _check_frame(path, frame, number)
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def _too_long(path: Path, count: int) -> str:
    return (
        f"{path} has too many frames: the first {count} already take more than {MAX_VIDEO_BYTES // 10**9} GB. "
        "Cut it, or read fewer with `max_frames`."
    )


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is a damaged or truncated video ({reason}). Copy or download it again."
