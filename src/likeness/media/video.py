"""Writes H.264 in mp4, reads mp4, Matroska and GIF. Equal frames give byte-identical files."""

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
from likeness.media.guard import check_media_file, is_gif_truncated, matroska_bytes

logger = logging.getLogger(__name__)

MAX_FRAME_PIXELS = 36_000_000
"""Largest video frame that is decoded; one of 8K has 35 megapixels."""
MAX_VIDEO_BYTES = 4_000_000_000
"""Largest memory for the decoded frames of one video."""
_DEMUXERS = {"MP4": "mov", "Matroska": "matroska", "GIF": "gif"}
_FPS_DENOMINATOR_LIMIT = 1001
_MAX_MISSING_SHARE = 0.05
"""Largest share of frames or duration that may be missing; otherwise the file counts as truncated."""
_FPS_TOLERANCE = 0.02
"""Largest relative difference between the stated and the measured frame rate before the measured one is used."""
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
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        for frame in container.decode(stream):
            frames.append(_to_rgb(path, frame, len(times) + 1))
            times.append(frame.time)
            if len(times) == max_frames:
                break
        fps = _frame_rate(times, _stated_fps(stream))
        if len(times) != max_frames:
            _check_complete(path, container, stream, times)
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
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        picker = _NearestFrames(path, fps, max_frames, _stated_fps(stream))
        times: list[float | None] = []
        for number, frame in enumerate(container.decode(stream), start=1):
            times.append(frame.time)
            if picker.add(frame, number):
                break
        else:
            _check_complete(path, container, stream, times)
            picker.finish(_frame_rate(times, _stated_fps(stream)))
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
        _check_frame(self._path, frame, number)
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
            self._pixels = _to_rgb(self._path, frame, number)
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
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        for number, frame in enumerate(container.decode(stream)):
            times.append(frame.time)
            if number % step:
                _check_frame(path, frame, number + 1)
                continue
            kept.append((number, _to_rgb(path, frame, number + 1)))
            _check_size(path, kept[0][1], kept[-1][1], number + 1)
            if 2 * len(kept) * kept[0][1].nbytes > MAX_VIDEO_BYTES:  # Twice: stacking copies them.
                raise MediaError(_too_long(path, len(kept)))
            if len(kept) > num_frames:  # The length is known only at the end: double the step, drop every other frame.
                step *= 2
                kept = [(other, pixels) for other, pixels in kept if other % step == 0]
        _check_complete(path, container, stream, times)
        fps = _frame_rate(times, _stated_fps(stream))
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
    with _decoding(path), _open(path) as container:
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


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
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
        raise MediaError(_damaged(path, str(error))) from error


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


def _open(path: Path) -> InputContainer:
    kind, name = check_media_file(path, expected="a video")
    if kind == "picture" and name not in _DEMUXERS:
        raise MediaError(f"{path} is a picture ({name}), a video is needed. Use an mp4, mov, mkv, webm or gif file.")
    if name not in _DEMUXERS:
        raise MediaError(f"{path} is not a video that is read here. Use an mp4, mov, mkv, webm or gif file.")
    # The demuxer is forced, so that FFmpeg cannot be made to open a playlist or network format. Tags that are not UTF-8
    # are accepted.
    return av.open(str(path), "r", format=_DEMUXERS[name], metadata_errors="surrogateescape")


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise MediaError(f"{path} has no picture track: it is sound alone, or damaged or truncated. Use another file.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError(_damaged(path, "its codec is not known"))
    _check_pixels(path, stream.width, stream.height)
    # Frames may be larger than the header says: FFmpeg refuses those before it allocates memory.
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"{path} is too large ({width} x {height} pixels); at most {MAX_FRAME_PIXELS // 1_000_000} megapixels a "
            "frame are read. Scale it down."
        )


def _check_frame(path: Path, frame: VideoFrame, number: int) -> None:
    if frame.is_corrupt:
        raise MediaError(_damaged(path, f"frame {number} is corrupt"))
    _check_pixels(path, frame.width, frame.height)


def _check_size(path: Path, first: np.ndarray, frame: np.ndarray, number: int) -> None:
    if frame.shape != first.shape:
        (height, width), (first_height, first_width) = frame.shape[:2], first.shape[:2]
        raise MediaError(
            f"{path} changes its size: frame {number} has {width} x {height} pixels, the first {first_width} x "
            f"{first_height}. Convert it to one size."
        )


def _stated_fps(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _frame_rate(times: list[float | None], stated_fps: float) -> float:
    """The stated rate, unless frame times differ from it: headers of variable-rate videos are often wrong."""
    known = [time for time in times if time is not None]
    if len(known) < max(2, len(times)) or not max(known) > min(known):
        return stated_fps
    measured_fps = (len(known) - 1) / (max(known) - min(known))
    return stated_fps if abs(measured_fps - stated_fps) <= _FPS_TOLERANCE * stated_fps else measured_fps


def _check_complete(path: Path, container: InputContainer, stream: VideoStream, times: list[float | None]) -> None:
    """Refuse a truncated file: decoders stop at its end without an error, and only its beginning would be measured."""
    size_bytes = path.stat().st_size
    if (stated_bytes := matroska_bytes(path)) is not None and size_bytes < stated_bytes:
        raise MediaError(_damaged(path, f"{size_bytes} of {stated_bytes} bytes are here"))
    if is_gif_truncated(path):
        raise MediaError(_damaged(path, "its last block is missing"))
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
        raise MediaError(_damaged(path, f"pictures end after {end_s:.1f} of {duration_s:.1f} s"))


def _to_rgb(path: Path, frame: VideoFrame, number: int) -> np.ndarray:
    """Check a frame, and apply the rotation that phones store in the file (degrees, counterclockwise)."""
    _check_frame(path, frame, number)
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def _too_long(path: Path, count: int) -> str:
    return (
        f"{path} has too many frames: the first {count} already take more than {MAX_VIDEO_BYTES // 10**9} GB. "
        "Cut it, or read fewer with `max_frames`."
    )


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is a damaged or truncated video ({reason}). Copy or download it again."
