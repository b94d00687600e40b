"""Encodes the media of samples into the ledger: videos as mp4, pictures and references as png."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from likeness.curation.ledger import Ledger, digest
from likeness.curation.stage import Candidate, Source, SourceView
from likeness.curation.stages.read import open_source
from likeness.errors import MediaError
from likeness.media.pictures import resize, write_image
from likeness.media.video import write_video

_VERSION = 1
"""Raised when other bytes are written for the same request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaRequest:
    """What is to be encoded of a source."""

    suffix: Literal[".mp4", ".png"]
    first_frame: int
    num_frames: int
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels; the whole frame by default."""
    short_side_px: int | None = None
    """Larger media are scaled down to it."""
    long_side_px: int | None = None
    """Larger media are scaled down to it."""
    fps: float | None = None
    """Frame rate of videos; by default that of the source."""
    max_frames: int = 1
    """Longest video that is written."""
    generated: str = ""
    """SHA-256 of the pixels of a picture that a stage generated: it is written instead of a frame of the source."""

    def key(self, source: str) -> str:
        """The key of the result in the ledger."""
        values = {name: value for name, value in asdict(self).items() if name != "generated" or value}
        return digest("media", source, _VERSION, values)

    def path(self, ledger: Ledger, source: str) -> Path:
        """Where the result is, or is to be written."""
        return ledger.media(source, self.key(source), self.suffix)


def render_media(ledger: Ledger, source: Source, requests: Sequence[MediaRequest], key: str = "") -> None:
    """Encode what is not there yet.

    Args:
        ledger: Where results are.
        source: The source.
        requests: What is to be encoded of it.
        key: Of its candidates, which hold generated pictures.

    Raises:
        DamagedError: The candidates are damaged.
        MediaError: The source cannot be read, or a request does not suit it.
        FileWriteError: A file cannot be written.
    """
    missing = [one for one in requests if ledger.media_record(one.path(ledger, source.sha256)) is None]
    if not missing:
        return
    pictures = [one for one in missing if one.generated]
    if pictures:
        candidates = ledger.read(source.sha256, key)
        for request in pictures:
            _write(ledger, source, request, [_shape(find_generated(candidates, request.generated), request)], 1.0)
    frames = [one for one in missing if not one.generated]
    if frames:
        with open_source(source) as view:
            for request in sorted(frames, key=lambda one: one.first_frame):
                _render(ledger, view, request)


def find_generated(candidates: Sequence[Candidate], sha256: str) -> np.ndarray:
    """The generated picture with that hash, (height, width, 3) uint8."""
    for one in candidates:
        for row, entry in enumerate(one.facts.get("generated") or ()):
            if entry["sha256"] == sha256:
                return one.arrays["generated"][row]
    raise ValueError(f"no candidate has a generated picture {sha256}")


def _render(ledger: Ledger, view: SourceView, request: MediaRequest) -> None:
    numbers, fps = choose_frames(request, view.fps)
    pictures = {number: _shape(view.frames(number, 1)[0], request) for number in dict.fromkeys(numbers)}
    _write(ledger, view.source, request, [pictures[number] for number in numbers], fps)


def _write(ledger: Ledger, source: Source, request: MediaRequest, frames: Sequence[np.ndarray], fps: float) -> None:
    path = request.path(ledger, source.sha256)
    if request.suffix == ".png":
        write_image(path, frames[0])
    else:
        write_video(path, np.stack(frames), fps)
    height, width = frames[0].shape[:2]
    facts = {"width_px": width, "height_px": height, "num_frames": len(frames), "fps": fps}
    ledger.write_media_record(path, facts)


def choose_frames(request: MediaRequest, source_fps: float) -> tuple[list[int], float]:
    """Numbers of the frames that are written, the nearest in time of each moment, and their rate."""
    if request.suffix == ".png":
        return [request.first_frame], 1.0
    fps = request.fps or source_fps
    count = min(max(1, round(request.num_frames * fps / source_fps)), request.max_frames)
    numbers = [min(round(place * source_fps / fps), request.num_frames - 1) for place in range(count)]
    return [request.first_frame + number for number in numbers], fps


def _shape(frame: np.ndarray, request: MediaRequest) -> np.ndarray:
    """Crop and scale a frame; sides of videos are made even, as their encoder needs them."""
    height, width = frame.shape[:2]
    if request.crop is not None:
        left, top, right, bottom = request.crop
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if right - left < 2 or bottom - top < 2:
            raise MediaError(f"The crop {request.crop} lies outside the frame of {width} x {height} pixels.")
        frame = frame[top:bottom, left:right]
        height, width = frame.shape[:2]
    scale = min(
        1.0,
        (request.short_side_px or height) / min(height, width),
        (request.long_side_px or width) / max(height, width) if request.long_side_px else 1.0,
    )
    if request.short_side_px is None and request.long_side_px is None:
        scale = 1.0
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    if request.suffix == ".mp4":
        new_width, new_height = max(2, new_width - new_width % 2), max(2, new_height - new_height % 2)
        if scale == 1.0:
            return np.ascontiguousarray(frame[:new_height, :new_width])
    return resize(frame, new_width, new_height)
