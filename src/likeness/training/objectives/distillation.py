"""A Magic Mirror that has learned teaches another method over the same base: its v takes the place of the data's.

What it says of noisy latents is already of a whole face and of the person, as far as it draws them, so another method need
not find out anew, by rollouts and rewards, what of the data a small transformer can draw. It is distillation
(arXiv:1503.02531v1) between methods: they share base, sentences and references, and no layer.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness.errors import WeightsError
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.data.pairs import TokenizedPrompts, read_base
from likeness.training.methods.denoiser import MethodDenoiser
from likeness.training.objectives import diffusion


class DistillationTeacher:
    """The teacher over a pipeline of its own.

    Args:
        base: Folder of the pipeline over which it was trained.
        folder: Its adapter.
        data: The sets of a stage.
        targets: Name of the set that the stage learns from.
        scale: Strength of its references.
        dtype: Of its products.

    Raises:
        WeightsError: There is no such adapter or pipeline.
    """

    def __init__(
        self,
        base: Path,
        folder: Path,
        data: dict[str, Any],
        targets: str,
        *,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        pipe = read_base(base)
        if not (folder / "config.json").is_file():
            raise WeightsError(
                f"No adapter at {folder}, which has no config.json. Name a trained Magic Mirror as `teacher`."
            )
        method: Any = MagicMirror.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        method.eval().requires_grad_(False).attach(pipe)
        diffusion.cast_base(pipe.transformer, method, dtype)
        wide = tuple(method._keep_in_fp32_modules or ())
        self.denoiser = diffusion.CastParameters(MethodDenoiser(pipe, method, scale=scale), dtype, wide=wide)
        self.embeddings: Tensor = data["faces"]["embedding"]
        self.sentences = TokenizedPrompts(pipe, method, data[targets])
        self.dtype = dtype

    @torch.no_grad()
    def __call__(
        self,
        rows: Tensor,
        faces: Tensor,
        pixels: Tensor,
        *,
        is_unconditional: Tensor,
        active: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """V of these rows, in float32.

        Shapes:
            rows: (batch,), of the set that is learned from
            faces: (batch, references), rows of the set of faces
            pixels: (batch, references, 3, height, width) in [-1, 1]: those faces
            is_unconditional: (batch,), boolean: whose sentence was dropped
            active: (batch,), boolean: who has an identity
            noisy: (batch, frames, channels, height, width)
            timesteps: (batch,)
            returns: as `noisy`
        """
        count = faces.shape[1]
        ids = torch.where(is_unconditional[:, None], self.sentences.empty, self.sentences.ids[count][rows])
        mask = self.sentences.masks[count][rows] & ~is_unconditional[:, None]
        return self.denoiser(
            ids,
            mask,
            pixels.to(self.dtype),
            self.embeddings[faces],
            active,
            noisy.to(self.dtype),
            timesteps,
        ).float()
