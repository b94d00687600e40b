"""What the recipe of a method says (`methods.py` trains by it)."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from likeness.config import Settings
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.objectives.on_policy import RolloutSettings


class MethodStageSettings(RolloutSettings):
    """One stage of the method."""

    identity_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples without an identity."""
    both_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of samples without either."""
    face_share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples whose loss is taken over the face alone."""
    self_reference: float = Field(default=0.3, ge=0, le=1)
    """Share of images whose reference shows the same scene."""
    two_references_every: int = Field(default=4, ge=0)
    """Every so many steps one with two references a sample; 0 for never."""
    identity_weight: float = Field(default=0.1, ge=0)
    """The paper's lambda."""
    identity_contrast: float = Field(default=0.0, ge=0)
    """Within the identity loss, the weight of telling each person from the others of a process's share of the step: InfoNCE
    (arXiv:1807.03748v2, Eq. 4) over the same cosines."""
    identity_samples: int = Field(default=4, ge=0)
    """At most so many samples of a process's share of a step are decoded for the identity loss."""
    attention_guidance: float = Field(default=0.0, ge=0)
    """Add this much of what perturbed-attention guidance says over the recipe's `unguided` base to what is learned."""
    teacher_scale: float = Field(default=0.0, ge=0)
    """Learn the v of the recipe's `teacher`, with its references at this strength, in the place of the data's; 0 for none."""
    on_policy_distillation_weight: float = Field(default=0.0, ge=0)
    """Weight of how far the method is from its teacher on latents that it has drawn itself."""
    perturbed_layers: tuple[int, ...] = ()
    """Blocks whose attention that guidance perturbs."""
    min_alpha_bar: float = 0.5
    """The identity loss is taken where more than this share of the variance is signal."""
    identity_views: int = Field(default=1, ge=1)
    """Crops of each decoded face that the identity loss is averaged over; those after the first are moved a little and
    every other one is mirrored, so that no pattern pays that hangs on where pixels lie."""

    @model_validator(mode="after")
    def _is_used(self) -> Self:
        if self.rollout_samples and not (self.identity_weight or self.on_policy_distillation_weight):
            raise ValueError(
                f"stage `{self.name}` has rollout_samples, but an identity_weight of 0 and no on_policy_distillation_weight"
            )
        if self.on_policy_distillation_weight and not (self.rollout_samples and self.teacher_scale):
            raise ValueError(
                f"stage `{self.name}` has on_policy_distillation_weight: give it rollout_samples and a teacher_scale"
            )
        if self.identity_contrast and not self.identity_weight:
            raise ValueError(f"stage `{self.name}` has identity_contrast, but an identity_weight of 0")
        if self.attention_guidance and self.teacher_scale:
            raise ValueError(
                f"stage `{self.name}` has attention_guidance and teacher_scale: a teacher is guided already"
            )
        if self.attention_guidance and not self.perturbed_layers:
            raise ValueError(f"stage `{self.name}` has attention_guidance: name blocks in `perturbed_layers`")
        return self


class MethodRecipe(Settings):
    """A method over a trained base."""

    seed: int = 0
    base: Path
    """Folder of the pipeline."""
    unguided: Path | None = None
    """Folder of the pipeline as it was before it learned guidance, for stages with `attention_guidance`."""
    guidance_teacher: Path | None = None
    """Folder of an adapter of this shape that was trained over `unguided`, or over `base` where that differs little."""
    teacher: Path | None = None
    """Folder of a Magic Mirror adapter over `base`, for stages with a `teacher_scale`."""
    recognizer: Path
    """Folder of the distilled recognizer."""
    start: Path | None = None
    """Folder of an adapter of this shape to go on from; from nothing if absent."""
    method: dict[str, Any] = Field(default_factory=dict)
    """Changes of the method's own defaults, say `has_norm = false` for Magic Mirror."""
    faces: PuppetSettings
    """References, several of each person; images of the same scenes are what the image stage learns."""
    clips: PuppetSettings
    """Of the same seed, so of the same people."""
    validation: PuppetSettings
    """References of people that no step sees."""
    without: tuple[str, ...] = ()
    """Names of stages to leave out: Magic Mirror's ablation of image pre-training."""
    stages: tuple[MethodStageSettings, ...] = Field(min_length=1)
