"""Bytes on one GPU while a stage trains, and what must be switched on for a GPU.

Weights of the base are in the recipe's `base_dtype`; those of the method are float32, with a gradient, two moments and
a moving average for each trained one. Activations are those of `activations.py`, once more for the gradients inside of
the block that is computed (`WORKSPACE`). `RESERVE_BYTES` are for the CUDA context, kernels and the allocator's gaps.
"""

from dataclasses import dataclass

from likeness.training.methods.settings import MethodRecipe, MethodStageSettings
from likeness.training.plan.activations import saved_per_block, saved_per_sample
from likeness.training.plan.flops import Tokens
from likeness.training.plan.sizes import MetaModels, count_parameters

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "auto": 2}
"""By the setting; `auto` is bfloat16 on every GPU with 24 GB or more that is meant here."""
RESERVE_BYTES = 2e9
WORKSPACE = 1.0
"""Gradients of activations and temporaries, as a multiple of what one block of a sample saves."""
IDENTITY_LOSS_BYTES = {"vae": 1.25e9, "taecvx": 0.23e9}
"""Peak of the identity loss for each decoded window, counted by benchmarks/identity_loss.py, checkpointed."""
RECOGNIZER_BYTES = 0.27e9
"""ArcFace R100 in float32; R50 has two thirds of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySettings:
    """The settings of a stage that memory depends on."""

    gradient_checkpointing: bool
    micro_batch: int
    """Samples of a GPU at once."""
    accumulation: int
    optimizer: str
    parallel: str
    cards: int

    def overrides(self, stage: MethodStageSettings, number: int) -> list[str]:
        """`--set` arguments that differ from a stage's settings."""
        prefix, overrides = f"stages.{number}", []
        if self.gradient_checkpointing != stage.gradient_checkpointing:
            overrides.append(f"{prefix}.gradient_checkpointing={str(self.gradient_checkpointing).lower()}")
        if self.accumulation != stage.accumulation:
            overrides.append(f"{prefix}.accumulation={self.accumulation}")
        if self.optimizer != stage.optimizer.kind:
            overrides.append(f'{prefix}.optimizer.kind="{self.optimizer}"')
        if self.parallel != stage.parallel:
            overrides.append(f'{prefix}.parallel="{self.parallel}"')
        return overrides


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMemory:
    """Bytes on one GPU, by what they hold."""

    base: float
    method: float
    """Weights of the method, trained and frozen."""
    training_state: float
    """Gradients, moments and the moving average."""
    activations: float
    identity_loss: float
    reserve: float = RESERVE_BYTES

    @property
    def total(self) -> float:
        """All of it."""
        return self.base + self.method + self.training_state + self.activations + self.identity_loss + self.reserve


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFit:
    """A stage on some GPUs."""

    card_bytes: float
    switches: MemorySettings
    memory: GpuMemory

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory.total <= self.card_bytes


def estimate_memory(
    models: MetaModels, recipe: MethodRecipe, stage: MethodStageSettings, tokens: Tokens, switches: MemorySettings
) -> GpuMemory:
    """Bytes on each GPU."""
    shards = switches.cards if switches.parallel == "fsdp2" else 1
    dtype_bytes = DTYPE_BYTES[stage.dtype]
    parts = [part for part in models.parts() if part.name not in ("base transformer", "VAE")]
    trainable, frozen = sum(part.trainable for part in parts), sum(part.frozen for part in parts)
    layers = int(models.config.num_layers)
    transformer = DTYPE_BYTES[recipe.base_dtype] * count_parameters(models.transformer)
    # FSDP2 gathers a block while it runs, and the next one ahead.
    gathered = 2 * transformer / layers if shards > 1 else 0
    moments = 2 if switches.optimizer == "adamw8bit" else 4 if switches.optimizer == "muon" else 8
    saved = saved_per_sample(models, tokens, is_checkpointed=switches.gradient_checkpointing)
    block = saved_per_block(models, tokens, is_adapted=True)
    activations = switches.micro_batch * (saved.bytes(dtype_bytes) + WORKSPACE * block.bytes(dtype_bytes))
    # Autocast's copies of trained weights are saved, too; with checkpoints those of one block.
    copies = dtype_bytes * trainable / (layers if switches.gradient_checkpointing else 1)
    decoded = min(stage.identity_samples, switches.micro_batch) if stage.identity_weight else 0
    identity = decoded * IDENTITY_LOSS_BYTES[stage.identity_decoder]
    return GpuMemory(
        base=transformer / shards + gathered + DTYPE_BYTES[recipe.base_dtype] * count_parameters(models.vae),
        method=4 * (trainable + frozen) / shards + copies,
        training_state=(4 + moments + 4) * trainable / shards,
        activations=activations,
        identity_loss=identity + RECOGNIZER_BYTES,
    )


def find_fit(
    models: MetaModels,
    recipe: MethodRecipe,
    stage: MethodStageSettings,
    tokens: Tokens,
    *,
    cards: int,
    card_bytes: float,
) -> StageFit:
    """The fewest switches with which a stage fits, or all of them where it does not.

    They are tried in the order of what they cost: more micro-batches, gradient checkpointing, sharding (with several
    GPUs), 8-bit moments.
    """
    tried: list[StageFit] = []
    parallels = [stage.parallel] if cards == 1 else dict.fromkeys([stage.parallel, "fsdp2"])
    optimizers = dict.fromkeys(
        [stage.optimizer.kind, "adamw8bit" if stage.optimizer.kind == "adamw" else stage.optimizer.kind]
    )
    for optimizer in optimizers:
        for parallel in parallels:
            for is_checkpointed in dict.fromkeys([stage.gradient_checkpointing, True]):
                for per_gpu in _micro_batches(stage, cards):
                    accumulation = max(1, stage.batch // (per_gpu * cards))
                    switches = MemorySettings(
                        gradient_checkpointing=is_checkpointed,
                        micro_batch=per_gpu,
                        accumulation=accumulation,
                        optimizer=optimizer,
                        parallel=parallel,
                        cards=cards,
                    )
                    memory = estimate_memory(models, recipe, stage, tokens, switches)
                    tried.append(StageFit(card_bytes=card_bytes, switches=switches, memory=memory))
                    if tried[-1].fits:
                        return tried[-1]
    return min(tried, key=lambda candidate: candidate.memory.total)


def _micro_batches(stage: MethodStageSettings, cards: int) -> list[int]:
    """Samples per GPU that divide the batch, from the recipe's micro-batch downwards."""
    largest = max(1, min(stage.micro_batch, stage.batch // cards))
    return [size for size in range(largest, 0, -1) if stage.batch % (size * cards) == 0] or [1]
