"""F_face: dense features of a face image, the outputs of the last two blocks of a vision transformer.

`SmallVisionTransformer` is trained with the method; `ClipVisionEncoder` wraps the CLIP vision tower of transformers.
tau_id reads the last block, tau_face the penultimate one (Magic Mirror, arXiv:2501.03931v1, A.5), so one pass serves
both. Images are in [-1, 1], of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from transformers import CLIPVisionConfig, CLIPVisionModel

from likeness.errors import ConfigError, WeightsError
from likeness.identity.encoders.convolution import downsampling_layers

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFeatures:
    """Features of the last two blocks.

    Shapes:
        last, penultimate: (batch, tokens, width), class token first
    """

    last: Tensor
    penultimate: Tensor


def resize(pixels: Tensor, size_px: int, *, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Resize square images to `size_px` with antialiasing."""
    if pixels.shape[-1] == pixels.shape[-2] == size_px:
        return pixels
    size = (size_px, size_px)  # In float32: CPUs do not resize bfloat16.
    resized = interpolate(pixels.float(), size=size, mode=mode, antialias=True, align_corners=False)
    return resized.clamp(-1, 1).to(pixels) if mode == "bicubic" else resized.to(pixels)


class TransformerLayer(nn.Module):
    """A pre-norm transformer block without masks.

    Shapes:
        x: (batch, tokens, width)
        returns: (batch, tokens, width)
    """

    def __init__(self, width: int, num_heads: int, *, hidden_width: int | None = None, qkv_bias: bool = True) -> None:
        super().__init__()
        hidden_width = hidden_width or 4 * width
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.to_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden_width), nn.GELU(), nn.Linear(hidden_width, width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.to_qkv(self.norm1(x)), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.num_heads
        )
        attended = scaled_dot_product_attention(query, key, value)
        x = x + self.to_out(rearrange(attended, "b h n d -> b n (h d)"))
        return x + self.feed_forward(self.norm2(x))


class SmallVisionTransformer(nn.Module):
    """A small ViT, trained with the method.

    With `stem_widths`, a convolutional stem (as in `Recognizer`) replaces the linear patch embedding (early
    convolutions, arXiv:2106.14881v3). It halves the image once per width.

    Shapes:
        pixels: (batch, 3, height, width) in [-1, 1]
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int,
        num_heads: int,
        image_size_px: int,
        patch_size_px: int,
        stem_widths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        num_patches = (image_size_px // patch_size_px) ** 2
        if stem_widths:
            if patch_size_px != 2 ** len(stem_widths):
                raise ConfigError(
                    f"A stem of {len(stem_widths)} widths makes patches of {2 ** len(stem_widths)} px, not of "
                    f"{patch_size_px}. Give one width for each halving."
                )
            self.patch_embed = nn.Sequential(*downsampling_layers(stem_widths), nn.Conv2d(stem_widths[-1], width, 1))
        else:
            self.patch_embed = nn.Conv2d(3, width, patch_size_px, stride=patch_size_px)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + num_patches, width))
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads) for _ in range(depth))

    def forward(self, pixels: Tensor) -> DenseFeatures:
        patches = rearrange(self.patch_embed(resize(pixels, self.image_size_px)), "b w y x -> b (y x) w")
        x = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1) + self.position
        for layer in self.layers[:-1]:
            x = layer(x)
        return DenseFeatures(last=self.layers[-1](x), penultimate=x)


class ClipVisionEncoder(nn.Module):
    """CLIP's vision tower. Both outputs are before the final LayerNorm, as in PhotoMaker-V2.

    Shapes:
        pixels: (batch, 3, height, width) in [-1, 1]
    """

    def __init__(self, width: int, *, depth: int, num_heads: int, image_size_px: int, patch_size_px: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        self.model = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=depth,
                num_attention_heads=num_heads,
                image_size=image_size_px,
                patch_size=patch_size_px,
            )
        )

    def forward(self, pixels: Tensor) -> DenseFeatures:
        mean = pixels.new_tensor(CLIP_MEAN)[:, None, None]
        std = pixels.new_tensor(CLIP_STD)[:, None, None]
        # Bicubic and clipped, as in CLIP's preprocessing.
        pixels = ((resize(pixels, self.image_size_px, mode="bicubic") + 1) / 2 - mean) / std
        hidden = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return DenseFeatures(last=hidden[-1], penultimate=hidden[-2])

    def fill(self, folder: Path) -> None:
        """Load the vision tower of a CLIP in a hub folder (`CLIPModel` or `CLIPVisionModel`), strictly.

        Raises:
            WeightsError: There is none, or it has other sizes.
        """
        if not (folder / "config.json").is_file():
            raise WeightsError(f"No CLIP at {folder}, which has no config.json. Name the folder of a CLIP ViT.")
        try:
            clip = CLIPVisionModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"The CLIP at {folder} cannot be read ({error}). Download it again.") from error
        state, expected = clip.state_dict(), self.model.state_dict()
        if mismatched := [name for name in expected if name not in state or state[name].shape != expected[name].shape]:
            raise WeightsError(
                f"The CLIP at {folder} has other sizes than the method: {mismatched[0]} is "
                f"{tuple(state[mismatched[0]].shape) if mismatched[0] in state else 'missing'}, expected "
                f"{tuple(expected[mismatched[0]].shape)}. Use the CLIP that the profile names."
            )
        self.model.load_state_dict({name: state[name] for name in expected})
