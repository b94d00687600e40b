"""What is on while a person is generated, and what each forward pass is told of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.controls import IdentityControls, current_step, timesteps_of
from likeness.adapters.conditioning.regions import RegionMasks, Regions
from likeness.adapters.diffusers.attach import is_guided
from likeness.adapters.sampling.precompute import Acting, Steps


class Person(Protocol):
    """A person's tokens, one row for each prompt."""

    @property
    def face_tokens(self) -> Tensor: ...

    @property
    def num_people(self) -> int: ...

    def __len__(self) -> int: ...

    def expand(self, batch: int) -> Any: ...


class SamplingCache(Protocol):
    """What sampling keeps of an identity (`ModulationCache`, `KVCache`)."""

    transformer: Any

    def suits(self, transformer: Any, /) -> bool: ...

    def enter(self, condition: FaceCondition, timestep: Tensor, steps: Steps | None, dtype: torch.dtype, /) -> None: ...

    def restore(self) -> None: ...

    def close(self) -> None: ...


@dataclass(kw_only=True, slots=True)
class Session:
    """What is on while a `conditioned` or `identity` context is open."""

    identity: Person
    active: Tensor | None
    controls: IdentityControls
    acting: Acting
    """Numbers of the adapted blocks that act; None for all."""
    num_prompts: int
    sampling_cache: Any = None
    """What sampling keeps of this identity; None where every row has a switch of its own, as in training."""
    told: tuple[Tensor | None, Tensor] | None = None
    """The projected x_id and x_face of every prompt, kept while sampling."""
    whose: Tensor | None = None
    """(prompts, text_tokens): whose class word each word of the last prompts is, for several people."""
    places: dict[Any, RegionMasks] = field(default_factory=dict)
    """Where several people are in passes of some size."""
    prompts: tuple[Tensor, Tensor] | None = None
    """The last prompts' embeddings with the person in them, and without, for the steps outside the window."""

    def without_person(self, text: Tensor) -> Tensor:
        """Give the text of a forward pass as it is without the person, where `prompt` made it.

        Prompts that the caller encoded come back as they are: nobody knows where the person is in them.
        """
        if self.prompts is None:
            return text
        fused, plain = (embeds.to(text) for embeds in self.prompts)
        rows = len(text) - len(fused)  # under guidance the conditional rows are the last
        if rows < 0 or not torch.equal(text[rows:], fused):
            return text
        return torch.cat([text[:rows], plain])

    def acting_in(self, step: int, num_steps: int) -> Acting:
        """Blocks that act in one step of a pipeline's call."""
        return self.acting if self.controls.is_open(step, num_steps) else frozenset()

    def steps(self, timesteps: Sequence[float]) -> Steps:
        """Every step of a pipeline's call, with the blocks that act in it."""
        return [(float(time), self.acting_in(step, len(timesteps))) for step, time in enumerate(timesteps)]

    def renew(self, num_prompts: int) -> None:
        """Bring the weights back, and forget what was kept for another number of prompts."""
        if self.sampling_cache is not None:
            self.sampling_cache.restore()
        if num_prompts != self.num_prompts:
            self.close()
            self.places.clear()
            self.num_prompts = num_prompts

    def name(self, whose: Tensor) -> None:
        """Say whose class words stand where in the prompts to come."""
        self.whose = whose
        self.places.clear()

    def close(self) -> None:
        if self.sampling_cache is not None:
            self.sampling_cache.close()
        self.told = None

    def condition(
        self,
        text: Tensor,
        timestep: Tensor,
        pipe: CogVideoXPipeline | None,
        project: Callable[[Any], Tensor | None],
    ) -> tuple[FaceCondition, Tensor]:
        """Say what the coming forward pass is told, and its text; lay out what was computed before.

        Args:
            text: Its text, with the person in it.
            timestep: (batch,).
            pipe: Whose call it may be part of.
            project: What the method's layers are told of an identity beside its face tokens, with gradients where there are any.
        """
        timesteps = timesteps_of(pipe) if self.sampling_cache or self.controls.has_window else None
        acting = self.acting
        if self.controls.has_window:
            step = current_step(timesteps, timestep)
            acting = self.acting_in(step, len(timesteps or ()))
            # The face still travels along, so that caches of diffusers meet the same shapes in every step.
            text = self.without_person(text) if acting == frozenset() else text
        sampling_cache = self.sampling_cache
        if sampling_cache is not None and (
            torch.is_grad_enabled() or not sampling_cache.suits(sampling_cache.transformer)
        ):
            sampling_cache = None
            self.renew(self.num_prompts)
        told = self.told if sampling_cache is not None else None
        if told is None:
            identity = self.identity.expand(self.num_prompts)
            told = (project(identity), identity.face_tokens)
        self.told = told if sampling_cache is not None else None
        several = self.identity.num_people > 1
        condition = FaceCondition(
            identity=told[0],
            face=told[1],
            active=self.active,
            scale=self.controls.scale,
            branch=self.controls.branch,
            acting=acting,
            is_guided=is_guided(pipe),
            batch=len(text),
            sampling_cache=sampling_cache,
            text_tokens=text.shape[1],
            regions=self.controls.regions or Regions() if several else None,
            num_people=self.identity.num_people,
            whose=self.whose,
            kept=self.places,
        )
        if sampling_cache is not None:
            sampling_cache.enter(condition, timestep, None if timesteps is None else self.steps(timesteps), text.dtype)
        return condition, text
