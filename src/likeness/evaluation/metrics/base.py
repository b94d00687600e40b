"""The type of a metric. `registry` lists all metrics; docs/metrics.md has their formulas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from likeness.evaluation.metrics.inputs import MetricInputs
from likeness.evaluation.metrics.record import Direction, MetricRecord

MAGIC_MIRROR = "Magic Mirror, arXiv:2501.03931"
FANTASY_ID = "FantasyID, arXiv:2502.13995"
VBENCH = "VBench, arXiv:2311.17982, and its code"
OPENS2V = "OpenS2V-Nexus, its code"
CONSISID = "ConsisID, its code"
EVALCRAFTER = "EvalCrafter, its code"
HERE = "this project"

FACES = "frames with a face"
FRAMES = "all frames"
FACE_PAIRS = "pairs of consecutive frames with a face in both"
PAIRS = "all pairs of consecutive frames"
SET = "the set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A number computed from the inputs of one video, or of all videos of a system. NaN means undefined."""

    name: str
    title: str
    unit: str
    direction: Direction
    averaged: str
    source: str
    required_features: tuple[str, ...]
    """Names in `features.registry.FEATURES`."""
    compute_for_video: Callable[[MetricInputs], float] | None = None
    compute_for_system: Callable[[Sequence[MetricInputs]], float] | None = None
    needs_references: bool = False
    """Whether reference pictures are required; other metrics can use the video's own first face."""
    needs_prompt: bool = False
    version: int = 1

    @property
    def record(self) -> MetricRecord:
        return MetricRecord(
            name=self.name,
            title=self.title,
            unit=self.unit,
            direction=self.direction,
            level="system" if self.compute_for_video is None else "video",
            averaged=self.averaged,
            source=self.source,
            version=self.version,
        )
