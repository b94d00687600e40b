"""A third method in one file: a face's embedding as a few tokens that every block reads.

It is IP-Adapter (arXiv:2308.06721v1) with a recognizer's embedding instead of CLIP's, on a video transformer. It shows
what a method has to implement (docs/add_a_method.md) and is not tuned for quality.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from likeness.adapters.blocks.fantasy_id import InjectionLayer, wrap
from likeness.adapters.diffusers.attach import transformer_sizes
from likeness.adapters.sampling.kv_cache import KVCache
from likeness.identity.prompt import TRIGGER, PromptTokens, tokenize_without_trigger
from likeness.identity.reference import FaceInput, read_faces
from likeness.identity.tokens import PersonTokens
from likeness.methods.method import Method
from likeness.training.data.pairs import Split, TrainingData
from likeness.training.methods.spec import MethodTrainingSpec


class FaceTokens(Method):
    """Tokens of an embedding, and a cross-attention to them behind every block."""

    @register_to_config
    def __init__(
        self,
        width: int,
        num_layers: int,
        embedding_width: int = 128,
        num_tokens: int = 4,
        context_width: int = 128,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_width))
        self.register_buffer("spread", torch.ones(embedding_width))
        self.reader = nn.Sequential(
            nn.Linear(embedding_width, 2 * context_width),
            nn.GELU(),
            nn.Linear(2 * context_width, num_tokens * context_width),
            nn.Unflatten(-1, (num_tokens, context_width)),
        )
        layers = {
            str(number): InjectionLayer(
                width, context_width=context_width, inner_width=width, head_width=32, is_layer_aware=False
            )
            for number in range(num_layers)
        }
        self.layers = nn.ModuleDict(layers)
        self.frozen = tuple(frozen)

    @staticmethod
    def tiny_config(transformer_config: Any, **changes: Any) -> dict[str, Any]:
        sizes = transformer_sizes(transformer_config)
        return {"width": sizes["width"], "num_layers": sizes["num_layers"], **changes}

    def encode(self, faces: FaceInput | Sequence[FaceInput]) -> PersonTokens:
        """Encode one person from one or more pictures."""
        embedding = np.stack([face.embedding for face in read_faces(faces)])

        def encode() -> PersonTokens:
            return self.encode_tensors(None, torch.from_numpy(embedding).to(self.mean)[None])

        return self._encode_cached([embedding], encode)

    def encode_tensors(self, _pixels: Tensor | None, embedding: Tensor) -> PersonTokens:
        """Encode a batch with gradients; `embedding` is (batch, references, embedding_width)."""
        standard = ((embedding - self.mean) / self.spread).to(self.reader[0].weight)
        return PersonTokens(face_tokens=self.reader(standard).flatten(1, 2))

    def tokenize(self, prompts: Sequence[str], tokenizer: Any, *, num_references: Any, max_length: int) -> PromptTokens:
        """Return token ids without the trigger word: this method does not use the prompt."""
        del num_references
        return tokenize_without_trigger(prompts, tokenizer, max_length=max_length, trigger=TRIGGER)

    def fuse(self, prompt_embeds: Tensor, mask: Tensor, identity: Any, *, scale: float = 1.0) -> Tensor:
        del mask, identity, scale
        return prompt_embeds

    def _wrap(self, block: Any, block_adapter: nn.Module | None, block_index: int) -> Any:
        return wrap(block, block_adapter, block_index)

    def _make_sampling_cache(self, transformer: Any) -> KVCache:
        del transformer
        return KVCache()


class FaceTokensTrainingSpec(MethodTrainingSpec):
    """The method reads the embedding of every reference, standardized over the training set."""

    def __init__(self) -> None:
        super().__init__("face_tokens", FaceTokens)

    def prepare(self, method: Any, data: TrainingData, *, from_scratch: bool) -> None:
        if from_scratch:
            embeddings = data.references["train"]["embedding"]
            method.mean.copy_(embeddings.mean(dim=0))
            method.spread.copy_(embeddings.std(dim=0))

    def extra_conditioning(self, data: TrainingData, split: Split, reference_indices: Tensor) -> Tensor:
        return data.references[split]["embedding"][reference_indices]
