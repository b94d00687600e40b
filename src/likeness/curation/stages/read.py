"""Opens a source for stages: frames are decoded once and kept, as far as a memory budget allows."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np

from likeness.curation.stage import Candidate, Source, SourceView, make_id
from likeness.media.pictures import read_image
from likeness.media.video_frames import VideoFrames
from likeness.training.files import tar

FRAME_MEMORY_BYTES = 1_000_000_000
"""Largest memory for the kept frames of one source."""


@contextmanager
def open_source(source: Source, *, memory_bytes: int = FRAME_MEMORY_BYTES) -> Iterator[SourceView]:
    """Open a picture or a video, or a member of a tar file.

    Raises:
        MediaError: It cannot be read.
    """
    with ExitStack() as stack:
        path = stack.enter_context(tar.opened(source.path))
        if source.kind == "image":
            yield PictureView(source, path)
        else:
            yield VideoView(source, stack.enter_context(VideoFrames(path)), memory_bytes)


def first_candidate(view: SourceView) -> Candidate:
    """The candidate that the first stage gets: the whole source, with its facts."""
    facts = {
        **view.source.facts,
        "kind": view.source.kind,
        "width_px": view.width_px,
        "height_px": view.height_px,
        "fps": view.fps,
    }
    sha256, count = view.source.sha256, view.num_frames
    return Candidate(id=make_id(sha256, 0, count), source=sha256, num_frames=count, facts=facts)


class PictureView:
    """A picture as a source of one frame."""

    num_frames, fps = 1, 1.0

    def __init__(self, source: Source, path: Path) -> None:
        self.source = source
        self._picture = _freeze(read_image(path))
        self.height_px, self.width_px = self._picture.shape[:2]
        self._scaled: dict[int, np.ndarray] = {}

    def frames(self, first: int, count: int, *, step: int = 1, max_side_px: int | None = None) -> np.ndarray:
        """As `SourceView.frames`."""
        _check_span(self, first, count, step, max_side_px)
        if max_side_px is None or max(self.width_px, self.height_px) <= max_side_px:
            return self._picture[None]
        if max_side_px not in self._scaled:
            self._scaled[max_side_px] = _freeze(scale_down(self._picture, max_side_px))
        return self._scaled[max_side_px][None]


class VideoView:
    """A video. Frames that were asked for are kept in the size asked for; where all fit, in full size."""

    def __init__(self, source: Source, video: VideoFrames, memory_bytes: int) -> None:
        self.source, self._video = source, video
        self.num_frames, self.fps = video.num_frames, float(video.fps)
        self.width_px, self.height_px = video.width_px, video.height_px
        self._kept: OrderedDict[tuple[int, int | None], np.ndarray] = OrderedDict()
        self._kept_bytes, self._memory_bytes = 0, memory_bytes
        self._keeps_all = 2 * self.num_frames * self.width_px * self.height_px * 3 <= memory_bytes

    def frames(self, first: int, count: int, *, step: int = 1, max_side_px: int | None = None) -> np.ndarray:
        """As `SourceView.frames`."""
        _check_span(self, first, count, step, max_side_px)
        if max_side_px is not None and max(self.width_px, self.height_px) <= max_side_px:
            max_side_px = None
        numbers = range(first, first + count, step)
        result: np.ndarray | None = None
        for place, number in enumerate(numbers):
            frame = self._frame(number, max_side_px)
            if result is None:
                result = np.empty((len(numbers), *frame.shape), np.uint8)
            result[place] = frame
        assert result is not None, "the span has at least one frame"
        return _freeze(result)

    def _frame(self, number: int, max_side_px: int | None) -> np.ndarray:
        if (kept := self._kept.get((number, max_side_px))) is not None:
            self._kept.move_to_end((number, max_side_px))
            return kept
        full = self._kept.get((number, None))
        if full is None:
            full = next(self._video.read(number, 1))
            if self._keeps_all or max_side_px is None:
                self._keep((number, None), full)
        if max_side_px is None:
            return full
        scaled = scale_down(full, max_side_px)
        self._keep((number, max_side_px), scaled)
        return scaled

    def _keep(self, key: tuple[int, int | None], frame: np.ndarray) -> None:
        self._kept[key] = frame
        self._kept_bytes += frame.nbytes
        while self._kept_bytes > self._memory_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.nbytes


def scale_down(frame: np.ndarray, max_side_px: int) -> np.ndarray:
    """Scale a frame by area averages so that its longer side has at most `max_side_px`.

    Shapes:
        frame: (height, width, 3) uint8
    """
    height, width = frame.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)


def _freeze(frames: np.ndarray) -> np.ndarray:
    frames.setflags(write=False)
    return frames


def _check_span(view: SourceView, first: int, count: int, step: int, max_side_px: int | None) -> None:
    if first < 0 or count < 1 or first + count > view.num_frames or step < 1:
        raise ValueError(
            f"Frames {first} to {first + count - 1} with step {step} do not lie in the {view.num_frames} frames of "
            f"{view.source.path.name}. Ask for a span inside, with a step of at least 1."
        )
    if max_side_px is not None and max_side_px < 1:
        raise ValueError(f"`max_side_px` is {max_side_px}; at least 1 is needed.")
