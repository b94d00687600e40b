"""What features are tried on: a way to make a pipeline, its adapter, and one video."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import CogVideoXPipeline
from torch import Tensor

from likeness.generation.presets import PRESETS
from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity
from likeness.weights import CHECKPOINTS

NUM_STEPS = 4
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What features are tried on."""

    pipe: Callable[[], CogVideoXPipeline]
    mirror: Callable[[CogVideoXPipeline], MagicMirror]
    prompt: str
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    skipping_steps: int = NUM_STEPS
    """Steps of the runs with caches that skip."""
    skipping_threshold: float = math.inf
    """First Block Cache skips where its first block's residual changed by less than this share."""

    def identity(self, mirror: MagicMirror) -> MagicMirrorIdentity:
        generator = torch.Generator().manual_seed(self.seed)
        side, width = mirror.config.image_size_px, mirror.config.embedding_width
        with torch.no_grad():
            return mirror.encode_tensors(
                torch.rand(1, 1, 3, side, side, generator=generator) * 2 - 1,
                torch.randn(1, 1, width, generator=generator),
            )

    def sample(self, pipe: CogVideoXPipeline, mirror: MagicMirror | None = None, **changes: Any) -> Tensor:
        """Sample with the identity, or the stock pipeline where there is no `mirror`."""
        options = {
            "num_inference_steps": NUM_STEPS,
            "generator": torch.Generator().manual_seed(self.seed),
            "max_sequence_length": pipe.transformer.config.max_text_seq_length,
            "output_type": "latent",
            **self.options,
            **changes,
        }
        if mirror is None:
            return pipe(self.prompt.replace(" img", ""), **options).frames
        with mirror.identity(self.identity(mirror)):
            return pipe(**{**options, **mirror.prompt(self.prompt)}).frames


def tiny_subject(seed: int) -> Subject:
    folder = CHECKPOINTS / "tiny"

    def pipe() -> CogVideoXPipeline:
        made = CogVideoXPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        made.set_progress_bar_config(disable=True)
        return made

    return Subject(
        pipe=pipe,
        mirror=lambda _pipe: MagicMirror.from_pretrained(folder / "magic_mirror"),
        prompt="a woman img in a red sweater smiles",
        seed=seed,
        options={"guidance_scale": 2.0},
        skipping_steps=PRESETS["tiny"].steps,
        skipping_threshold=0.5,  # about every other step
    )
