"""State of the diffusers pipeline call in which a transformer runs: timesteps, current step, and guidance."""

from typing import Any

from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.errors import ConfigError

CFG_RANK = "_guidance_rank"
"""Attribute that CFG parallelism sets on a transformer (`adapters/diffusers/parallel.py`)."""


def timesteps_of(pipe: CogVideoXPipeline | None) -> list[float] | None:
    """Return the timesteps of the call that `pipe` is in, or None outside of a call."""
    if pipe is None or getattr(pipe, "current_timestep", None) is None:
        return None
    return pipe.scheduler.timesteps.tolist()[-pipe.num_timesteps :]


def current_step(timesteps: list[float] | None, timestep: Tensor) -> int:
    """Return the index of the sampling step that a pipeline is in.

    Raises:
        ConfigError: The transformer runs outside of a pipeline call, so steps are not counted.
    """
    if timesteps is None:
        raise ConfigError(
            "The identity has a `start` or `end`, but the transformer runs outside of a pipeline's call, "
            "where steps are not counted. Attach to a pipeline and call that, or leave both out."
        )
    return timesteps.index(timestep.flatten()[0].item())


def is_guided(pipe: CogVideoXPipeline | None) -> bool | None:
    """Whether the current call runs both branches of classifier-free guidance in one pass.

    None where this is not known: outside of a call, and with FasterCache, which skips unconditional rows in some steps.
    False where two processes run one branch each (`adapters/diffusers/parallel.py`).
    """
    if pipe is None or getattr(pipe, "current_timestep", None) is None:
        return None
    if isinstance(pipe.transformer._cache_config, FasterCacheConfig):
        return None
    return pipe.guidance_scale > 1 and cfg_rank(pipe.transformer) is None


def is_unconditional_process(pipe: CogVideoXPipeline | None) -> bool:
    """Whether this process runs the unconditional branch alone."""
    return pipe is not None and cfg_rank(pipe.transformer) == 0 and pipe.guidance_scale > 1


def cfg_rank(transformer: CogVideoXTransformer3DModel) -> int | None:
    """Return the guidance branch of this process: 0 unconditional, 1 conditional, None both."""
    settings: dict[str, Any] = vars(transformer)
    return settings.get(CFG_RANK)
