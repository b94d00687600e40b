"""What the result says about a metric. It imports nothing heavy: results are read without any face engine."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRecord:
    """What a number of this name means. The formula stands in docs/metrics.md under the same name."""

    name: str
    title: str
    unit: str
    direction: Direction
    """Which way is better; `neither` for figures that only describe (a face rate is `higher`, a count neither)."""
    level: Literal["video", "system"]
    """`system` metrics compare sets and exist for no single video."""
    averaged: str
    """Over what the number of one video is a mean: all frames, frames with a face, pairs."""
    source: str
    """The publication or code whose definition it follows, `this project` where there is none."""
    version: int = 1
    """Rises whenever the numbers change."""
