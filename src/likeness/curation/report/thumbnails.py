"""Small pictures of candidates as data addresses, read from their sources."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from likeness.curation.stage import Candidate, Source
from likeness.curation.stages.read import open_source, scale_down
from likeness.errors import MediaError

SIDE_PX = 144
_READ_PX = 512
_QUALITY = 80
_BOX_COLOR = (240, 150, 95)
T = TypeVar("T")


def make_thumbnails(
    candidates: Iterable[Candidate],
    sources: Mapping[str, Mapping[str, str]],
    faces: Mapping[str, tuple[int, Sequence[float]]],
) -> dict[str, str]:
    """JPEGs of the middle frames of candidates, by id, cropped as their samples are.

    Where a candidate has an entry in `faces`, a frame and a box, that frame is shown with the box.

    Candidates whose sources are gone, changed in kind, damaged, or refused before they were opened have none.
    """
    by_source: dict[str, dict[str, Candidate]] = {}
    for one in candidates:
        if "width_px" not in one.facts:  # Never opened.
            continue
        by_source.setdefault(one.source, {})[one.id] = one
    found: dict[str, str] = {}
    for sha, group in by_source.items():
        entry = sources[sha]
        source = Source(path=Path(entry["path"]), sha256=sha, kind="video" if entry["kind"] == "video" else "image")
        try:
            with open_source(source) as view:
                for one in sorted(group.values(), key=lambda one: one.first_frame):
                    number, box = faces.get(one.id, (one.first_frame + one.num_frames // 2, None))
                    frame = view.frames(min(number, view.num_frames - 1), 1, max_side_px=_READ_PX)[0]
                    if box is not None:
                        frame = _mark(frame, box, view.width_px)
                    found[one.id] = _encode(_crop(frame, one, view.width_px))
        except (MediaError, OSError):
            continue
    return found


def spread(entries: Sequence[T], count: int) -> list[T]:
    """At most `count` entries, evenly spaced, with the first and the last."""
    if len(entries) <= count:
        return list(entries)
    return [entries[round(number * (len(entries) - 1) / (count - 1))] for number in range(count)]


def _mark(frame: np.ndarray, box: Sequence[float], width_px: int) -> np.ndarray:
    """A copy of a frame with a box around the face that a candidate is of."""
    left, top, right, bottom = (round(edge * frame.shape[1] / width_px) for edge in box)
    marked = np.ascontiguousarray(frame).copy()
    thickness = max(2, max(frame.shape[:2]) // SIDE_PX)  # Two pixels or more before it is scaled down.
    return np.asarray(cv2.rectangle(marked, (left, top), (right, bottom), _BOX_COLOR, 2 * thickness))


def _crop(frame: np.ndarray, candidate: Candidate, width_px: int) -> np.ndarray:
    box = candidate.facts.get("crop")
    if not isinstance(box, list) or len(box) != 4:
        return frame
    scale = frame.shape[1] / width_px
    left, top, right, bottom = (max(0, round(float(value) * scale)) for value in box)
    part = frame[top:bottom, left:right]
    return part if part.size else frame


def _encode(frame: np.ndarray) -> str:
    small = cv2.cvtColor(scale_down(frame, SIDE_PX), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
