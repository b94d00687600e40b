"""What every method does in the same way: attach, detach, hold an identity on, encode prompts, remember who was read.

A method is a class with its own readers and layers that derives from `Method` and says four things: how it wraps a block
(`_wrap`), how it reads a person (`encode`), how it tokenizes a prompt (`tokenize`), and what it writes into it (`fuse`). It is
a diffusers model, so that `from_pretrained` and `save_pretrained` work; it holds no weights of the base.
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
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.controls import Branch, IdentityControls
from likeness.adapters.conditioning.regions import Regions
from likeness.adapters.conditioning.session import SamplingCache, Session
from likeness.adapters.diffusers.attach import Attachment, attach, detach, is_unconditional_process, refuse_other_sizes
from likeness.adapters.diffusers.compatibility import resting_device
from likeness.errors import ConfigError
from likeness.identity.cache import IdentityCache, WeightsVersion, weights_version
from likeness.identity.prompt import PromptTokens, check_prompt_length
from likeness.identity.reference import FaceInput
from likeness.identity.tokens import PersonTokens

Tokens = TypeVar("Tokens", bound=PersonTokens)


class Method(ModelMixin, ConfigMixin):
    """A paper's method on a CogVideoX transformer. `attach(pipe)` puts its layers on, `detach()` takes them off."""

    layers: nn.ModuleDict
    """Trained layers by number of their block."""
    frozen: tuple[str, ...]
    """Name prefixes of parameters that never train."""
    branch: Branch = "conditional"
    """Which rows see the identity under guidance, where nobody says."""

    def __init__(self) -> None:
        super().__init__()
        self._attachment: Attachment | None = None
        self._pipe: CogVideoXPipeline | None = None
        self._session: Session | None = None
        self._people = IdentityCache()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the transformer behind when the adapter is copied (for a moving average) or pickled."""
        nothing = {"_attachment": None, "_pipe": None, "_session": None, "_people": IdentityCache()}
        return {**self.__dict__, **nothing}

    def encode(self, faces: FaceInput | Sequence[FaceInput]) -> Any:
        """Encode one person from one or more reference pictures (`Face` records or paths)."""
        raise NotImplementedError

    def encode_people(self, people: Sequence[FaceInput | Sequence[FaceInput]]) -> Any:
        """Encode several people who are to be in one video, each from one or more pictures.

        Raises:
            ConfigError: This method shows one person.
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
        """Token ids without the trigger, and a mask of the places where the person stands."""
        raise NotImplementedError

    def fuse(self, prompt_embeds: Tensor, mask: Tensor, identity: Any, *, scale: float = 1.0) -> Tensor:
        """Write the person into the prompt, where the method does that."""
        raise NotImplementedError

    def pipeline_arguments(self, _identity: Any) -> dict[str, Any]:
        """What a pipeline's call needs of the people beside prompts."""
        return {}

    def _wrap(self, block: CogVideoXBlock, layer: nn.Module | None, number: int) -> AdaptedBlock[Any]:
        raise NotImplementedError

    def _keeper(self, transformer: CogVideoXTransformer3DModel) -> SamplingCache:
        """Make what sampling keeps of one identity."""
        raise NotImplementedError

    def _project(self, _identity: Any) -> Tensor | None:
        """What layers are told of an identity beside its face tokens."""
        return None

    def _references(self, _identity: Any) -> int | Sequence[int]:
        """How many reference pictures an identity was read from, as far as prompts need to know."""
        return 1

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Switch gradients on where `frozen` does not forbid them, and return those parameters."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen))
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _weights(self) -> WeightsVersion | None:
        return weights_version((*self.parameters(), *self.buffers()))

    def _read_once(self, arrays: Sequence[np.ndarray], read: Callable[[], Tokens]) -> Tokens:
        """Read a person, unless these very arrays were read before by the same weights."""
        if self._session is not None:
            self._session.renew(self._session.num_prompts)
        key = IdentityCache.key(*arrays)
        known: Any = self._people.get(key, self._weights())
        if known is not None:
            return known
        with torch.no_grad():
            identity = read()
        self._people.put(key, identity)
        return identity

    @torch.no_grad()
    def prompt(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        max_sequence_length: int | None = None,
    ) -> dict[str, Any]:
        """Encode prompts with the current identity in them, as keyword arguments of the pipeline.

        At scale 0 they are the embeddings of the prompts without their trigger word.

        Raises:
            ConfigError: No identity is on, or the number of prompts does not fit it.
            PromptError: The trigger word is missing, doubled or misplaced, or the prompt is too long.
        """
        session, pipe = self._session, self._attached_pipe()
        if session is None:
            raise ConfigError("No identity is on. Call `prompt` inside `with mirror.identity(faces):`.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(session.identity) not in (1, len(prompts)):
            raise ConfigError(
                f"{len(prompts)} prompts were given for {len(session.identity)} identities. "
                "Give one identity for all prompts, or one for each."
            )
        session.renew(len(prompts))
        identity = session.identity.expand(len(prompts))
        max_length = max_sequence_length or pipe.transformer.config.max_text_seq_length
        scale = session.controls.scale
        references = self._references(identity)
        none = 0 if isinstance(references, int) else [0] * len(references)
        references = references if scale else none
        tokens = self.tokenize(prompts, pipe.tokenizer, num_references=references, max_length=max_length)
        embeds = pipe.text_encoder(tokens.ids.to(pipe._execution_device))[0]
        check_prompt_length(negative_prompt, pipe.tokenizer, max_length=max_length, what="negative prompt")
        negatives = [negative_prompt] * len(prompts)
        negative, _ = pipe.encode_prompt(negatives, None, False, max_sequence_length=max_length)
        fused = self.fuse(embeds.to(self.device), tokens.person_index, identity, scale=scale).to(negative)
        session.name(tokens.person_index)
        if session.controls.has_window:
            plain = self.tokenize(prompts, pipe.tokenizer, num_references=none, max_length=max_length)
            session.prompts = (fused, pipe.text_encoder(plain.ids.to(pipe._execution_device))[0].to(negative))
        return {"prompt_embeds": fused, "negative_prompt_embeds": negative, "max_sequence_length": max_length}

    def attach(self, target: CogVideoXPipeline | CogVideoXTransformer3DModel) -> Self:
        """Put the layers on a pipeline's transformer, or on a bare one, and move to its device and dtype.

        Raises:
            ConfigError: It is attached already, the sizes differ, or a cache is on.
        """
        if self._attachment is not None:
            raise ConfigError("This adapter is attached already. Call `detach()` first.")
        transformer = target if isinstance(target, CogVideoXTransformer3DModel) else target.transformer
        refuse_other_sizes(self.config, transformer.config)
        nn.Module.to(self, device=resting_device(transformer), dtype=transformer.dtype)
        self._attachment = attach(transformer, self.layers, self._condition, wrap=self._wrap)
        self._pipe = None if isinstance(target, CogVideoXTransformer3DModel) else target
        return self

    def detach(self) -> Self:
        """Take the layers off; the transformer is the stock one again."""
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
        """Generate as this person: what the pipeline runs inside the context sees the faces.

        Prompts made by `prompt` share one person. With others give one identity for each, or it is an error.

        Args:
            faces: Reference pictures of one person, or what `encode` made of them. A list for each of several people,
                `[["ann.jpg"], ["bob.jpg"]]`, shows them in one video: "a woman img1 waves at a man img2".
            scale: How strong the identity is; 0 is the stock pipeline, bit for bit.
            start: Share of the sampling steps before it acts, in blocks and prompt; until then nothing but stock runs.
            end: Share of the sampling steps after which it does not act any more.
            blocks: Numbers of the transformer's blocks in which it acts; None for all that are adapted.
            branch: Which rows see the identity under guidance: the conditional ones, or both; None as trained.
            regions: Where several people are; by default in strips from left to right, as the prompt names them.
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
        whose: Tensor | None = None,
    ) -> Iterator[None]:
        """Condition every forward pass of the transformer inside the context, with gradients.

        The batch is as large as the identities. Twice as large it is guidance in one pass, unconditional rows first,
        unless a pipeline runs without guidance: then it is an error.

        Args:
            identity: One for each row.
            active: (batch,), bool. Rows where it is False go through the stock blocks.
            scale: How strong the identity is.
            start: Share of the sampling steps before it acts; needs a pipeline's call, which counts them.
            end: Share of the sampling steps after which it does not act any more.
            blocks: Numbers of the transformer's blocks in which it acts.
            branch: Which rows see the identity under guidance in one pass; None as trained.
            regions: Where several people are.
            whose: (prompts, text_tokens), int64: whose class words stand where, if `prompt` is not used to say so.
        """
        if self._attachment is None:
            raise ConfigError("The adapter is not attached to a transformer. Call `attach(pipe)` first.")
        controls = IdentityControls(
            scale=scale,
            start=start,
            end=end,
            blocks=blocks,
            branch=branch or self.branch,
            regions=regions,
        )
        if regions is not None:
            regions.check(identity.num_people)
        before, weights = self._session, self._weights()
        if before is not None:
            before.renew(before.num_prompts)
        self._session = Session(
            identity=identity,
            active=active,
            controls=controls,
            acting=controls.acting(map(int, self.layers), self.config["num_layers"]),
            num_prompts=len(identity),
            whose=whose,
            sampling_cache=self._keeper(self._attachment.transformer) if active is None else None,
        )
        try:
            yield
        finally:
            self._session.close()
            self._session = before
            self._people.rebind(weights, self._weights())

    def _condition(self, text: Tensor, timestep: Tensor) -> tuple[FaceCondition | None, Tensor]:
        """What the transformer's next forward pass is told, and its text.

        Made anew each time, so that each pass has its own graph.
        """
        session = self._session
        if session is None or session.controls.scale == 0 or session.acting == frozenset():
            return None, text
        if session.controls.branch == "conditional" and is_unconditional_process(self._pipe):
            return None, text
        return session.condition(text, timestep, self._pipe, self._project)

    def _attached_pipe(self) -> CogVideoXPipeline:
        if self._pipe is None:
            raise ConfigError("The adapter is not attached to a pipeline. Call `attach(pipe)` first.")
        return self._pipe
