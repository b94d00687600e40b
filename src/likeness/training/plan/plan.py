"""Collects what a recipe needs: parameters, memory, FLOPs, hours and disk."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from likeness.errors import ConfigError
from likeness.training.methods.settings import MethodRecipe, MethodStageSettings
from likeness.training.plan.caches import CacheSizes, estimate_cache_sizes
from likeness.training.plan.flops import ForwardFlops, Tokens, count_forward_flops, count_tokens
from likeness.training.plan.memory import StageFit, find_fit
from likeness.training.plan.sizes import MetaModels, ParameterCount, read_models

GPUS = ((1, 24e9), (1, 80e9), (8, 80e9))
"""Number of GPUs, and bytes of each."""
IDENTITY_LOSS_TFLOP = {"vae": 4.78, "taecvx": 0.33}
"""Of one decoded window at 480x720 with ArcFace, checkpointed, counted by benchmarks/identity_loss.py."""
QUALIFYING_SHARE = 0.3
"""About this share of uniform timesteps of CogVideoX has an alpha_bar above 0.5, the default of `min_alpha_bar`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """What one stage needs."""

    name: str
    steps: int | None
    """None for a stage that ends by minutes."""
    minutes: float | None
    batch: int
    tokens: Tokens
    work: ForwardFlops
    """Forward, of one sample."""
    step_flops: float
    """Of a whole optimizer step of the recipe, forward and backward."""
    fits: tuple[StageFit, ...]
    """For each of `GPUS`."""

    def hours(self, tflops: float, cards: int) -> float:
        """Hours at a throughput of each GPU."""
        if self.steps is None:
            return (self.minutes or 0) / 60
        return self.steps * self.step_flops / (tflops * 1e12 * cards) / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """What a recipe needs. Every number is counted; none was measured on a GPU."""

    source: str
    parts: tuple[ParameterCount, ...]
    stages: tuple[StagePlan, ...]
    caches: CacheSizes
    tflops: float
    """Assumed throughput of a GPU."""

    @property
    def trainable(self) -> int:
        """Trained parameters."""
        return sum(part.trainable for part in self.parts)

    @property
    def frozen(self) -> int:
        """Frozen parameters that are loaded in training."""
        return sum(part.frozen for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the sums and hours."""
        values = asdict(self)
        values |= {"kind": "counted", "trainable": self.trainable, "frozen": self.frozen}
        values["caches"]["total"] = self.caches.total
        for stage, record in zip(self.stages, values["stages"], strict=True):
            record["hours"] = {f"{cards} card": stage.hours(self.tflops, cards) for cards in (1, 8)}
            for each, plain in zip(stage.fits, record["fits"], strict=True):
                plain |= {"fits": each.fits, "total_bytes": each.memory.total}
        return values


def make_plan(recipe: Any, *, tflops: float = 400.0, samples: int = 1000) -> TrainingPlan:
    """Count what a recipe needs; nothing is loaded.

    Args:
        recipe: Of a method, with data from files.
        tflops: Assumed throughput of a GPU, for the hours.
        samples: Files of each kind, where the data set is not here.

    Raises:
        ConfigError: The recipe is of another kind, or the sizes of its base are not known.
    """
    if not isinstance(recipe, MethodRecipe) or recipe.data is None:
        raise ConfigError("The recipe is not of a method with `data` from files. Plans are made for those alone.")
    if not 0 < tflops < math.inf or samples < 0:
        raise ConfigError(
            f"`tflops` is {tflops} and `samples` {samples}: give a finite rate above 0, and a number of files."
        )
    models = read_models(recipe)
    return TrainingPlan(
        source=models.source,
        parts=tuple(models.parts()),
        stages=tuple(_plan_stage(models, recipe, stage) for stage in recipe.stages),
        caches=estimate_cache_sizes(models, recipe, samples),
        tflops=tflops,
    )


def _plan_stage(models: MetaModels, recipe: MethodRecipe, stage: MethodStageSettings) -> StagePlan:
    assert recipe.data is not None
    tokens = count_tokens(models, recipe.data, is_image=stage.data == "images")
    work = count_forward_flops(models, tokens)
    flops = stage.batch * work.step(is_checkpointed=stage.gradient_checkpointing)
    if stage.identity_weight:
        decoded = min(stage.identity_samples, QUALIFYING_SHARE * stage.micro_batch) * stage.accumulation
        flops += decoded * IDENTITY_LOSS_TFLOP[stage.identity_decoder] * 1e12
    ends = [stage.steps, None if stage.samples is None else -(-stage.samples // stage.batch)]
    steps = min((end for end in ends if end is not None), default=None)
    return StagePlan(
        name=stage.name,
        steps=steps,
        minutes=stage.minutes,
        batch=stage.batch,
        tokens=tokens,
        work=work,
        step_flops=flops,
        fits=tuple(
            find_fit(models, recipe, stage, tokens, cards=cards, card_bytes=card_bytes) for cards, card_bytes in GPUS
        ),
    )
