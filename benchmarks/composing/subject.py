"""What features are tried on: a way to make a pipeline, its adapter, and one video."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import CogVideoXPipeline
from torch import Tensor

from likeness.generation.loading.presets import PRESETS
from likeness.identity.face_shape.network import ShapeNetwork
from likeness.identity.tokens import PersonTokens
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror
from likeness.methods.method import Method
from likeness.weights import CHECKPOINTS

NUM_STEPS = 4
TOLERANCE = 1e-5


def random_embedding(method: Any, generator: torch.Generator) -> Tensor:
    """What Magic Mirror reads beside pictures, (1, 1, embedding_width)."""
    return torch.randn(1, 1, method.config.embedding_width, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What features are tried on."""

    pipe: Callable[[], CogVideoXPipeline]
    method: Callable[[CogVideoXPipeline], Any]
    """Makes the method."""
    prompt: str
    extra_conditioning: Callable[[Any, torch.Generator], Tensor] = random_embedding
    """What the method reads of its person beside pictures."""
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    skipping_steps: int = NUM_STEPS
    """Steps of the runs with caches that skip."""
    skipping_threshold: float = math.inf
    """First Block Cache skips where its first block's residual changed by less than this share."""

    def identity(self, method: Any) -> PersonTokens:
        generator = torch.Generator().manual_seed(self.seed)
        side = method.config.image_size_px
        with torch.no_grad():
            pixels = torch.rand(1, 1, 3, side, side, generator=generator) * 2 - 1
            return method.encode_tensors(pixels, self.extra_conditioning(method, generator))

    def sample(self, pipe: CogVideoXPipeline, method: Any = None, **changes: Any) -> Tensor:
        """Sample with the identity, or the stock pipeline where there is no `method`."""
        options = {
            "num_inference_steps": NUM_STEPS,
            "generator": torch.Generator().manual_seed(self.seed),
            "max_sequence_length": pipe.transformer.config.max_text_seq_length,
            "output_type": "latent",
            **self.options,
            **changes,
        }
        if method is None:
            return pipe(self.prompt.replace(" img", ""), **options).frames
        with method.identity(self.identity(method)):
            return pipe(**{**options, **method.prompt(self.prompt)}).frames


def tiny_subject(seed: int, method: str = "magic_mirror") -> Subject:
    """The checkpoint that ships, with the adapter of that name."""
    folder = CHECKPOINTS / "tiny"
    kinds: dict[str, type[Method]] = {"magic_mirror": MagicMirror, "fantasy_id": FantasyID}
    head = ShapeNetwork.load(folder / "shape").mean

    def pipe() -> CogVideoXPipeline:
        made = CogVideoXPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        made.set_progress_bar_config(disable=True)
        return made

    return Subject(
        pipe=pipe,
        method=lambda _pipe: kinds[method].from_pretrained(folder / method),
        extra_conditioning=random_embedding if method == "magic_mirror" else lambda _method, _generator: head[None],
        prompt="a woman img in a red sweater smiles",
        seed=seed,
        options={"guidance_scale": 2.0},
        skipping_steps=PRESETS["tiny"].steps,
        skipping_threshold=0.5,  # about every other step
    )
