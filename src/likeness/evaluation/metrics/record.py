"""The description of a metric in a result; it imports nothing heavy, so results load without a face engine."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRecord:
    """Description of a metric; docs/metrics.md has the formula under the same name."""

    name: str
    title: str
    unit: str
    direction: Direction
    """Which way is better; `neither` for values that only describe."""
    level: Literal["video", "system"]
    """`system` metrics compare sets; single videos do not have them."""
    averaged: str
    """What a video's value is averaged over: all frames, frames with a face, pairs."""
    source: str
    """Publication or code that defines it, or `this project`."""
    version: int = 1
    """Increased whenever the numbers change."""
