"""State of an open `identity` context, from which the condition of each forward pass is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.adapters.conditioning.condition import BatchLayout, FaceCondition, SamplingCache
from likeness.adapters.conditioning.identity_settings import ActiveBlocks, IdentitySettings, StepSchedule
from likeness.adapters.conditioning.pipeline_call import current_step, is_guided, timesteps_of
from likeness.adapters.conditioning.regions import Grid, RegionMasks, Regions, build_region_masks


class Person(Protocol):
    """Tokens of a person, one row for each prompt."""

    @property
    def face_tokens(self) -> Tensor: ...

    @property
    def num_people(self) -> int: ...

    def __len__(self) -> int: ...

    def expand(self, batch: int) -> Any: ...


@dataclass(kw_only=True, slots=True)
class Session:
    """State of an open `conditioned` or `identity` context."""

    identity: Person
    active: Tensor | None
    identity_settings: IdentitySettings
    active_blocks: ActiveBlocks
    num_prompts: int
    sampling_cache: SamplingCache | None = None
    """None where `active` is given, as in training."""
    person_index: Tensor | None = None
    """(prompts, text_tokens): number of the person that each word of the last prompts names, for several people."""
    prompts: tuple[Tensor, Tensor] | None = None
    """Embeddings of the last prompts with the person and without, for the steps outside the window."""
    _tokens: tuple[Tensor | None, Tensor] | None = None
    """The projected x_id and x_face of every prompt, cached while sampling."""
    _region_masks: dict[Any, RegionMasks] = field(default_factory=dict)
    """Masks of several people by the size of the pass."""

    def condition(
        self,
        text: Tensor,
        timestep: Tensor,
        grid: Grid,
        pipe: CogVideoXPipeline | None,
        project: Callable[[Any], Tensor | None],
    ) -> tuple[FaceCondition, Tensor]:
        """Return the condition of the coming forward pass, and its text.

        Args:
            text: Its prompt embeddings, (batch, text_tokens, width), with the person in them.
            timestep: (batch,).
            grid: Frames, rows and columns of the video's tokens.
            pipe: The pipeline that may be running.
            project: Makes the projected x_id of an identity, with gradients where they are on.
        """
        sampling_cache = self._usable_cache()
        timesteps = timesteps_of(pipe) if self.sampling_cache or self.identity_settings.has_window else None
        active_blocks = self.active_blocks
        if self.identity_settings.has_window:
            step = current_step(timesteps, timestep)
            active_blocks = self._active_blocks_in(step, len(timesteps or ()))
            # Outside of the window the face tokens stay in the sequence, so that diffusers' caches see constant shapes.
            text = self._without_person(text) if active_blocks == frozenset() else text
        identity, face = self._project(project, is_cached=sampling_cache is not None)
        condition = FaceCondition(
            identity=identity,
            face=face,
            layout=BatchLayout(
                num_identities=len(face),
                num_rows=len(text),
                text_tokens=text.shape[1],
                grid=grid,
                num_people=self.identity.num_people,
                active=None if self.active is None else tuple(self.active.tolist()),
                is_guided=is_guided(pipe),
            ),
            identity_settings=self.identity_settings,
            active_blocks=active_blocks,
            region_masks=self._masks_on(grid, text.shape[1], face) if self.identity.num_people > 1 else None,
            sampling_cache=sampling_cache,
        )
        if sampling_cache is not None:
            sampling_cache.prepare(
                condition, timestep, None if timesteps is None else self._steps(timesteps), text.dtype
            )
        return condition, text

    def set_person_index(self, person_index: Tensor) -> None:
        """Set the person that each word of the next prompts names."""
        self.person_index = person_index
        self._region_masks.clear()

    def reset(self, num_prompts: int) -> None:
        """Restore offloaded weights, and drop what was cached for another number of prompts."""
        if self.sampling_cache is not None:
            self.sampling_cache.restore()
        if num_prompts != self.num_prompts:
            self.close()
            self._region_masks.clear()
            self.num_prompts = num_prompts

    def close(self) -> None:
        """Restore the transformer and drop cached tokens."""
        if self.sampling_cache is not None:
            self.sampling_cache.close()
        self._tokens = None

    def _usable_cache(self) -> SamplingCache | None:
        """Return the sampling cache where this pass may use it. Otherwise restore the weights that it has offloaded."""
        cache = self.sampling_cache
        if cache is None or not (torch.is_grad_enabled() or not cache.is_applicable()):
            return cache
        self.reset(self.num_prompts)
        return None

    def _project(self, project: Callable[[Any], Tensor | None], *, is_cached: bool) -> tuple[Tensor | None, Tensor]:
        """Return the projected x_id and x_face of every prompt."""
        tokens = self._tokens if is_cached else None
        if tokens is None:
            identity = self.identity.expand(self.num_prompts)
            tokens = (project(identity), identity.face_tokens)
        self._tokens = tokens if is_cached else None
        return tokens

    def _masks_on(self, grid: Grid, text_tokens: int, face: Tensor) -> RegionMasks:
        key = (grid, text_tokens, len(face), face.device)
        if key not in self._region_masks:
            self._region_masks[key] = build_region_masks(
                self.identity_settings.regions or Regions(),
                self.person_index,
                grid,
                num_identities=len(face),
                text_tokens=text_tokens,
                num_people=self.identity.num_people,
                device=face.device,
            )
        return self._region_masks[key]

    def _without_person(self, text: Tensor) -> Tensor:
        """Replace the embeddings of `prompt` by those without the person; embeddings of the caller stay as they are."""
        if self.prompts is None:
            return text
        fused, plain = (embeds.to(text) for embeds in self.prompts)
        rows = len(text) - len(fused)  # under guidance the conditional rows are the last
        if rows < 0 or not torch.equal(text[rows:], fused):
            return text
        return torch.cat([text[:rows], plain])

    def _active_blocks_in(self, step: int, num_steps: int) -> ActiveBlocks:
        return self.active_blocks if self.identity_settings.is_open(step, num_steps) else frozenset()

    def _steps(self, timesteps: Sequence[float]) -> StepSchedule:
        """Return every step of a pipeline call with its active blocks."""
        return [(float(time), self._active_blocks_in(step, len(timesteps))) for step, time in enumerate(timesteps)]
