"""Settings of a method's recipe."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from likeness.config import Settings
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.files.settings import FileDataSettings
from likeness.training.objectives.identity_loss import Average
from likeness.training.objectives.on_policy import RolloutSettings

ArcFaceEngine = Literal["research", "research/buffalo_l", "research/antelopev2", "open", "open/auraface"]
"""Face engines whose recognizer is an ArcFace."""


class MethodStageSettings(RolloutSettings):
    """One stage of the method."""

    LEGACY_VALUES: ClassVar[dict[str, Any]] = {
        "identity_average": "all",
        "identity_frames": "first",
        "identity_margin": 16,
    }
    """What settings were before they existed, for checkpoints of that time: whole first frames were decoded."""

    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    identity_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples without an identity."""
    both_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of samples without identity and without prompt."""
    face_share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples whose loss is computed over the face alone."""
    self_reference: float = Field(default=0.3, ge=0, le=1)
    """Share of images whose reference is the target image itself."""
    two_references_every: int = Field(default=4, ge=0)
    """One step in this many uses two references a sample; 0 for never."""
    identity_weight: float = Field(default=0.1, ge=0)
    """Weight of the identity loss, the paper's lambda: of its mean over the samples of a step that qualify."""
    identity_contrast: float = Field(default=0.0, ge=0)
    """Within the identity loss, the weight of a contrastive term over the people of a process's share of the step:
    InfoNCE (arXiv:1807.03748v2, Eq. 4) over the same cosines."""
    identity_samples: int = Field(default=4, ge=0)
    """At most this many samples of a process's share of a step are decoded for the identity loss, chosen at random. The
    mean over all that qualify is estimated from them; 0 for no identity loss on the data's latents."""
    identity_average: Average = "qualifying"
    """`qualifying`: the identity loss and the on-policy losses are means over the samples that qualify. `all`: over all
    samples, and those that are not decoded count as zero; the weights are then smaller than stated."""
    identity_frames: Literal["any", "first"] = "any"
    """Which latent frame is decoded: a random one of each sample, or the first."""
    identity_decoder: Literal["vae", "taecvx"] = "vae"
    """Decodes for the identity loss: the base's VAE, or TAECVX, which is small (CogVideoX's latents alone)."""
    identity_margin: int = Field(default=4, ge=0)
    """Latent pixels (8 px) around the largest face that are decoded; as many as a frame has decode whole frames."""
    identity_checkpointing: bool = True
    """Compute the decoder's activations again in the backward pass instead of keeping them."""
    attention_guidance: float = Field(default=0.0, ge=0)
    """Scale of perturbed-attention guidance over the recipe's `unguided` base, added to the target v; 0 for none."""
    teacher_scale: float = Field(default=0.0, ge=0)
    """Learn the v of the recipe's `teacher` at this identity scale instead of the data's v; 0 for no teacher."""
    on_policy_distillation_weight: float = Field(default=0.0, ge=0)
    """Weight of the squared error to the teacher's v on on-policy latents."""
    perturbed_layers: tuple[int, ...] = ()
    """Blocks whose attention is perturbed for `attention_guidance`."""
    min_alpha_bar: float = 0.5
    """The identity loss is computed for samples with more than this share of signal (alpha_bar)."""
    identity_views: int = Field(default=1, ge=1)
    """Crops of each decoded face that the identity loss is averaged over. Those after the first are jittered and every
    other one is mirrored, so that patterns that depend on exact pixel positions are not rewarded."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.rollout_samples and not (self.identity_weight or self.on_policy_distillation_weight):
            raise ValueError(
                f"stage `{self.name}` has rollout_samples, but neither an identity_weight nor an "
                "on_policy_distillation_weight"
            )
        if self.on_policy_distillation_weight and not (self.rollout_samples and self.teacher_scale):
            raise ValueError(
                f"stage `{self.name}` has on_policy_distillation_weight: give it rollout_samples and a teacher_scale"
            )
        if self.parallel == "fsdp2" and (self.rollout_samples or self.attention_guidance or self.teacher_scale):
            raise ValueError(
                f"stage `{self.name}` has rollouts, guidance or a teacher, whose forward passes differ between "
                'processes: use `parallel = "ddp"`'
            )
        if self.identity_contrast and not self.identity_weight:
            raise ValueError(f"stage `{self.name}` has identity_contrast, but an identity_weight of 0")
        if self.attention_guidance and self.teacher_scale:
            raise ValueError(
                f"stage `{self.name}` has attention_guidance and teacher_scale: a teacher is guided already; set one"
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
    """Folder of the pipeline before it learned guidance, for stages with `attention_guidance`."""
    guidance_teacher: Path | None = None
    """Folder of an adapter of this shape trained over `unguided` (or over a similar base), for `attention_guidance`."""
    teacher: Path | None = None
    """Folder of a Magic Mirror adapter over `base`, the distillation teacher of stages with a `teacher_scale`."""
    recognizer: ArcFaceEngine | Path
    """Folder of the distilled recognizer, or a face engine with ArcFace, for data made with that engine."""
    start: Path | None = None
    """Folder of an adapter of this shape to continue from; new weights if absent."""
    profile: Literal["tiny", "paper"] = "tiny"
    """The method's sizes: those of tiny, or those of its paper."""
    method: dict[str, Any] = Field(default_factory=dict)
    """Changes of the profile's settings, for example `has_norm = false` for Magic Mirror."""
    data: FileDataSettings | None = None
    """Photographs and videos on disk, instead of the puppets of `faces`, `clips` and `validation`."""
    faces: PuppetSettings | None = None
    """References, several of each person; the same scenes are the targets of image stages."""
    clips: PuppetSettings | None = None
    """Targets of clip stages; with the seed of `faces` they show the same people."""
    validation: PuppetSettings | None = None
    """References of validation people."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; `auto` is a GPU if there is one."""
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the frozen base in memory. The trained weights are float32."""
    without: tuple[str, ...] = ()
    """Names of stages to skip: Magic Mirror's ablation of image pre-training."""
    stages: tuple[MethodStageSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        puppet_sets = [name for name in ("faces", "clips", "validation") if getattr(self, name) is not None]
        if self.data is not None and puppet_sets:
            raise ValueError(f"`data` names files, so {', '.join(puppet_sets)} (puppets) cannot be used: remove them")
        if self.data is None and len(puppet_sets) < 3:
            raise ValueError("name files with `data`, or puppets with `faces`, `clips` and `validation`")
        if self.data is None and (mixed := [stage.name for stage in self.stages if stage.data == "mixed"]):
            raise ValueError(f"stage `{mixed[0]}` trains on `mixed`, which is for files: use images or clips")
        return self

    def puppets(self) -> dict[str, PuppetSettings]:
        """The puppet sets by name; empty with files."""
        sets = {"faces": self.faces, "validation": self.validation, "clips": self.clips}
        return {name: settings for name, settings in sets.items() if settings is not None}

    def training_spec(self) -> Any:
        """The `MethodTrainingSpec` of this recipe's method."""
        raise NotImplementedError
