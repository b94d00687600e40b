"""Base class of all methods: attach, detach, the identity context, prompts, and the cache of encoded people.

A method derives from `Method`, adds encoders and layers, and implements `encode` (a person), `tokenize` (a prompt),
`fuse` (the person into the prompt), `_wrap` (the adapted block) and `_make_sampling_cache`. It is a diffusers model, so
that `from_pretrained` and `save_pretrained` work. It holds no weights of the base.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.conditioning.condition import FaceCondition, SamplingCache
from likeness.adapters.conditioning.identity_settings import Branch, IdentitySettings
from likeness.adapters.conditioning.pipeline_call import is_unconditional_process
from likeness.adapters.conditioning.regions import Grid, Regions
from likeness.adapters.conditioning.session import Session
from likeness.adapters.diffusers.attach import Attachment, attach, detach, refuse_other_sizes
from likeness.adapters.diffusers.compatibility import adapter_device
from likeness.errors import ConfigError
from likeness.identity.cache import IdentityCache, WeightsVersion, weights_version
from likeness.identity.prompt import PromptTokens, check_prompt_length
from likeness.identity.reference import FaceInput
from likeness.identity.tokens import PersonTokens

Tokens = TypeVar("Tokens", bound=PersonTokens)


class Method(ModelMixin, ConfigMixin):
    """A method on a CogVideoX transformer. `attach(pipe)` adds its layers, `detach()` removes them."""

    layers: nn.ModuleDict
    """Trained layers by block number."""
    frozen: tuple[str, ...]
    """Name prefixes of parameters that never train."""
    branch: Branch = "conditional"
    """Rows that have the identity under guidance, by default."""

    def __init__(self) -> None:
        super().__init__()
        self._attachment: Attachment | None = None
        self._pipe: CogVideoXPipeline | None = None
        self._session: Session | None = None
        self._identity_cache = IdentityCache()

    def __getstate__(self) -> dict[str, Any]:
        """Drop references to the transformer when the adapter is copied (for a moving average) or pickled."""
        empty = {"_attachment": None, "_pipe": None, "_session": None, "_identity_cache": IdentityCache()}
        return {**self.__dict__, **empty}

    def encode(self, faces: FaceInput | Sequence[FaceInput]) -> Any:
        """Encode one person from one or more reference pictures (`Face` records or paths)."""
        raise NotImplementedError

    def encode_people(self, people: Sequence[FaceInput | Sequence[FaceInput]]) -> Any:
        """Encode several people for one video, each from one or more pictures.

        Raises:
            ConfigError: This method supports one person.
        """
        raise ConfigError(
            f"{type(self).__name__} shows one person, but faces of {len(people)} were given. Use Magic Mirror."
        )

    def tokenize(
        self,
        prompts: Sequence[str],
        tokenizer: Any,
        *,
        num_references: int | Sequence[int],
        max_length: int,
    ) -> PromptTokens:
        """Return token ids without the trigger word, and the positions of the class words."""
        raise NotImplementedError

    def fuse(self, prompt_embeds: Tensor, mask: Tensor, identity: Any, *, scale: float = 1.0) -> Tensor:
        """Add the person to the prompt embeddings; methods that do not use the prompt return them unchanged."""
        raise NotImplementedError

    def pipeline_arguments(self, _identity: Any) -> dict[str, Any]:
        """Return further arguments of the pipeline call that depend on the identity."""
        return {}

    def _wrap(self, block: CogVideoXBlock, block_adapter: nn.Module | None, block_index: int) -> AdaptedBlock[Any]:
        raise NotImplementedError

    def _make_sampling_cache(self, transformer: CogVideoXTransformer3DModel) -> SamplingCache | None:
        """Return an empty sampling cache for one identity, or None to compute everything in the blocks."""
        raise NotImplementedError

    def _project(self, _identity: Any) -> Tensor | None:
        """Return what the layers read of an identity in addition to its face tokens."""
        return None

    def _num_references(self, _identity: Any) -> int | Sequence[int]:
        """Return the number of reference pictures of an identity, as `tokenize` needs it."""
        return 1

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Enable gradients on all parameters that are not `frozen`, and return them."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen))
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _weights_version(self) -> WeightsVersion | None:
        return weights_version((*self.parameters(), *self.buffers()))

    def _encode_cached(self, arrays: Sequence[np.ndarray], encode: Callable[[], Tokens]) -> Tokens:
        """Encode a person, unless the same arrays were encoded before with the same weights."""
        if self._session is not None:
            self._session.reset(self._session.num_prompts)  # Weights may be offloaded.
        key = IdentityCache.key(*arrays)
        cached: Any = self._identity_cache.get(key, self._weights_version())
        if cached is not None:
            return cached
        with torch.no_grad():
            identity = encode()
        self._identity_cache.put(key, identity)
        return identity

    @torch.no_grad()
    def prompt(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        max_sequence_length: int | None = None,
    ) -> dict[str, Any]:
        """Encode prompts with the current identity and return keyword arguments of the pipeline.

        At scale 0 they are the embeddings of the prompts without their trigger word.

        Raises:
            ConfigError: There is no current identity, or the number of prompts differs from the identity's.
            PromptError: The trigger word is missing, doubled or misplaced, or the prompt is too long.
        """
        session, pipe = self._session, self._attached_pipe()
        if session is None:
            raise ConfigError("There is no identity. Call `prompt` inside `with method.identity(faces):`.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(session.identity) not in (1, len(prompts)):
            raise ConfigError(
                f"{len(prompts)} prompts were given for {len(session.identity)} identities. "
                "Give one identity for all prompts, or one for each."
            )
        session.reset(len(prompts))
        identity = session.identity.expand(len(prompts))
        max_length = max_sequence_length or pipe.transformer.config.max_text_seq_length
        scale = session.identity_settings.scale
        num_references = self._num_references(identity)
        no_references = 0 if isinstance(num_references, int) else [0] * len(num_references)
        num_references = num_references if scale else no_references
        tokens = self.tokenize(prompts, pipe.tokenizer, num_references=num_references, max_length=max_length)
        embeds = pipe.text_encoder(tokens.ids.to(pipe._execution_device))[0]
        check_prompt_length(negative_prompt, pipe.tokenizer, max_length=max_length, what="negative prompt")
        negatives = [negative_prompt] * len(prompts)
        negative, _ = pipe.encode_prompt(negatives, None, False, max_sequence_length=max_length)
        fused = self.fuse(embeds.to(self.device), tokens.person_index, identity, scale=scale).to(negative)
        session.set_person_index(tokens.person_index)
        if session.identity_settings.has_window:
            plain_tokens = self.tokenize(prompts, pipe.tokenizer, num_references=no_references, max_length=max_length)
            session.prompts = (fused, pipe.text_encoder(plain_tokens.ids.to(pipe._execution_device))[0].to(negative))
        return {"prompt_embeds": fused, "negative_prompt_embeds": negative, "max_sequence_length": max_length}

    def attach(
        self, target: CogVideoXPipeline | CogVideoXTransformer3DModel, *, dtype: torch.dtype | None = None
    ) -> Self:
        """Attach the layers to a pipeline's transformer, or to a bare one, and move to its device.

        Args:
            target: The pipeline or transformer.
            dtype: Of the method's parameters; by default the transformer's. For training over a bfloat16 base, keep
                them in float32 and run under autocast: small updates are lost in bfloat16.

        Raises:
            ConfigError: The method is attached already, the sizes differ, or a cache is enabled.
        """
        if self._attachment is not None:
            raise ConfigError("This adapter is attached already. Call `detach()` first.")
        transformer = target if isinstance(target, CogVideoXTransformer3DModel) else target.transformer
        refuse_other_sizes(self.config, transformer.config)
        nn.Module.to(self, device=adapter_device(transformer), dtype=dtype or transformer.dtype)
        self._attachment = attach(transformer, self.layers, self._condition, wrap=self._wrap)
        self._pipe = None if isinstance(target, CogVideoXTransformer3DModel) else target
        return self

    def detach(self) -> Self:
        """Remove the layers and restore the stock transformer."""
        if self._attachment is None:
            raise ConfigError("This adapter is not attached. Call `attach(pipe)` first.")
        detach(self._attachment)
        self._attachment, self._pipe = None, None
        return self

    @contextmanager
    def identity(
        self,
        faces: Any,
        *,
        scale: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        blocks: range | Sequence[int] | None = None,
        branch: Branch | None = None,
        regions: Regions | None = None,
    ) -> Iterator[Any]:
        """Condition all pipeline calls inside the context on this person.

        Prompts made by `prompt` share one person. Other prompts need one identity each.

        Args:
            faces: Reference pictures of one person, or the result of `encode`. A list for each of several people,
                `[["ann.jpg"], ["bob.jpg"]]`, shows them in one video: "a woman img1 waves at a man img2".
            scale: Strength of the identity; 0 is the stock pipeline, bit for bit.
            start: Share of the sampling steps before it is active, in blocks and prompt; they run the stock pipeline.
            end: Share of the sampling steps after which it is inactive.
            blocks: Numbers of the transformer's blocks in which it is active; None for all that are adapted.
            branch: Rows that have the identity under guidance: the conditional ones, or both; None as trained.
            regions: Regions of several people; by default strips from left to right, in the order of the prompt.
        """
        if isinstance(faces, PersonTokens):
            identity: Any = faces
        elif isinstance(faces, (list, tuple)) and any(isinstance(face, (list, tuple)) for face in faces):
            identity = self.encode_people(faces)
        else:
            identity = self.encode(faces)
        with self.conditioned(
            identity, scale=scale, start=start, end=end, blocks=blocks, branch=branch, regions=regions
        ):
            yield identity

    @contextmanager
    def conditioned(
        self,
        identity: PersonTokens,
        *,
        active: Tensor | None = None,
        scale: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        blocks: range | Sequence[int] | None = None,
        branch: Branch | None = None,
        regions: Regions | None = None,
        person_index: Tensor | None = None,
    ) -> Iterator[None]:
        """Condition every forward pass of the transformer inside the context, with gradients.

        The batch is as large as the identities. Twice as large it is guidance in one pass, unconditional rows first,
        unless a pipeline runs without guidance: then it is an error.

        Args:
            identity: One for each row.
            active: (batch,), bool. Rows where it is False go through the stock blocks.
            scale: Strength of the identity.
            start: Share of the sampling steps before it is active; needs a pipeline call, which counts steps.
            end: Share of the sampling steps after which it is inactive.
            blocks: Numbers of the transformer's blocks in which it is active.
            branch: Rows that have the identity under guidance in one pass; None as trained.
            regions: Regions of several people.
            person_index: (prompts, text_tokens), int64: number of the person that each word names, from 1; 0 for none.
                Needed where several people's prompts are not made by `prompt`.
        """
        if self._attachment is None:
            raise ConfigError("The adapter is not attached to a transformer. Call `attach(pipe)` first.")
        identity_settings = IdentitySettings(
            scale=scale,
            start=start,
            end=end,
            blocks=blocks,
            branch=branch or self.branch,
            regions=regions,
        )
        if regions is not None:
            regions.check(identity.num_people)
        outer_session, version = self._session, self._weights_version()
        if outer_session is not None:
            outer_session.reset(outer_session.num_prompts)
        self._session = Session(
            identity=identity,
            active=active,
            identity_settings=identity_settings,
            active_blocks=identity_settings.active_blocks(map(int, self.layers), self.config["num_layers"]),
            num_prompts=len(identity),
            person_index=person_index,
            sampling_cache=self._make_sampling_cache(self._attachment.transformer) if active is None else None,
        )
        try:
            yield
        finally:
            self._session.close()
            self._session = outer_session
            self._identity_cache.move_version(version, self._weights_version())

    def _condition(self, text: Tensor, timestep: Tensor, grid: Grid) -> tuple[FaceCondition | None, Tensor]:
        """Return the condition of the coming forward pass, and its text.

        It is made for every pass, so that each pass has its own graph.
        """
        session = self._session
        if session is None or session.identity_settings.scale == 0 or session.active_blocks == frozenset():
            return None, text
        if session.identity_settings.branch == "conditional" and is_unconditional_process(self._pipe):
            return None, text
        return session.condition(text, timestep, grid, self._pipe, self._project)

    def _attached_pipe(self) -> CogVideoXPipeline:
        if self._pipe is None:
            raise ConfigError("The adapter is not attached to a pipeline. Call `attach(pipe)` first.")
        return self._pipe
