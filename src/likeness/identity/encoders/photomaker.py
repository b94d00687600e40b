"""PhotoMaker-V2's published identity encoder: the source of tau_id and F_face in Magic Mirror.

One pass of a fine-tuned CLIP ViT-L/14 serves both branches: tau_id reads the last block, tau_face the penultimate one
(Magic Mirror, arXiv:2501.03931v1, A.5). The recognizer's embedding (buffalo_l) is the input as it is, not normalized;
every reference gives two tokens of width 2048, and references are not averaged.

`fill_from_photomaker` copies the published weights into a Magic Mirror adapter of full size; docs/weights.md shows
the call. `PhotoMakerEncoder` is the complete published model, for code that needs PhotoMaker's own tokens and for the
parity tests. No other module of this package imports them. The file's LoRA for SDXL is not read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from accelerate import init_empty_weights
from einops import rearrange
from torch import Tensor, nn

from likeness.config import Settings
from likeness.errors import ConfigError, WeightsError
from likeness.identity.encoders.perceiver import IdentityPerceiver
from likeness.identity.encoders.vit import ClipVisionEncoder, DenseFeatures
from likeness.identity.fuse import IdentityFuse, identity_token_indices
from likeness.weights.strict import find_altered, read_file_shapes, refuse_differences, shapes_of
from likeness.weights.tensors import read_pickle, read_tensors, refuse_not_finite

PUBLISHED_PREFIXES = {
    "vision_model.": "face_encoder.model.",
    "qformer_perceiver.": "identity_perceiver.",
}
"""Published prefixes of parameter names, and those of `PhotoMakerEncoder` and `MagicMirror`."""

_PARTS = ("id_encoder", "lora_weights")
_REMEDY = "Fetch the published file again: `likeness models pull photomaker-v2 --preset research`."


class PhotoMakerSettings(Settings):
    """Sizes of the encoder; the defaults are those of PhotoMaker-V2."""

    encoder_width: int = 1024
    """Channels of the ViT."""
    encoder_depth: int = 24
    """Blocks of the ViT."""
    encoder_heads: int = 16
    """Attention heads of the ViT."""
    image_size_px: int = 224
    """Side of the ViT's input."""
    patch_size_px: int = 14
    """Side of one patch."""
    projection_widths: tuple[int, int] = (768, 1280)
    """Widths of two projections that version 2 contains but never computes."""
    embedding_width: int = 512
    """Width of the recognizer's embedding."""
    identity_width: int = 2048
    """Channels of an identity token."""
    identity_depth: int = 4
    """Layers of the perceiver."""
    head_width: int = 128
    """Channels per attention head in the perceiver."""
    tokens_per_reference: int = 2
    """Identity tokens of each reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoMakerTokens:
    """Inputs of both branches of a method.

    Shapes:
        id_tokens: (batch, references * tokens_per_reference, identity_width): x_id
        dense: last and penultimate (batch * references, tokens, encoder_width)
    """

    id_tokens: Tensor
    dense: DenseFeatures


class PhotoMakerFuse(IdentityFuse):
    """PhotoMaker's fuse module: the output of the last LayerNorm replaces the class word's embedding.

    The published code changes its input and takes one sample at a time; this one does neither. Magic Mirror trains
    its own fuse module in T5's space (`IdentityFuse`).

    Shapes:
        text: (batch, text_tokens, width)
        mask: (batch, text_tokens), bool: the positions of the class word, per sample
        identity: (batch, identity_tokens, width)
        returns: (batch, text_tokens, width), a new tensor
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        nn.init.ones_(self.layer_norm.weight)

    def forward(self, text: Tensor, mask: Tensor, identity: Tensor, *, scale: float = 1.0) -> Tensor:
        if scale == 0 or not mask.any():
            return text
        rows, columns = mask.nonzero(as_tuple=True)
        words = text[rows, columns].to(self.layer_norm.weight)  # (marked, width)
        tokens = identity[rows, identity_token_indices(mask, identity.shape[1])[rows, columns]]
        fused = self.mlp1(torch.cat([words, tokens.to(words)], dim=-1)) + words
        fused = self.layer_norm(self.mlp2(fused))
        return text.index_put((rows, columns), (words + scale * (fused - words)).to(text))


class PhotoMakerEncoder(nn.Module):
    """From face images and recognizer embeddings to identity tokens and dense features.

    Shapes:
        pixels: (batch, references, 3, height, width) in [-1, 1], square
        embedding: (batch, references, embedding_width), not normalized
    """

    def __init__(self, settings: PhotoMakerSettings | None = None) -> None:
        super().__init__()
        settings = settings or PhotoMakerSettings()
        self.settings = settings
        self.face_encoder = ClipVisionEncoder(
            settings.encoder_width,
            depth=settings.encoder_depth,
            num_heads=settings.encoder_heads,
            image_size_px=settings.image_size_px,
            patch_size_px=settings.patch_size_px,
        )
        # In the published file but unused; kept so that saving again loses nothing.
        first, second = settings.projection_widths
        self.visual_projection = nn.Linear(settings.encoder_width, first, bias=False)
        self.visual_projection_2 = nn.Linear(settings.encoder_width, second, bias=False)
        self.identity_perceiver = IdentityPerceiver(
            settings.identity_width,
            embedding_width=settings.embedding_width,
            feature_width=settings.encoder_width,
            depth=settings.identity_depth,
            head_width=settings.head_width,
            num_tokens=settings.tokens_per_reference,
        )
        self.fuse_module = PhotoMakerFuse(settings.identity_width)

    def forward(self, pixels: Tensor, embedding: Tensor) -> PhotoMakerTokens:
        if embedding.shape[:2] != pixels.shape[:2] or embedding.shape[2] != self.settings.embedding_width:
            raise ConfigError(
                f"Embeddings are {tuple(embedding.shape)}; {tuple(pixels.shape[:2])} references need one of "
                f"{self.settings.embedding_width} numbers each. Read the faces with the engine `research`."
            )
        dense = self.face_encoder(rearrange(pixels, "b refs c y x -> (b refs) c y x"))
        tokens = self.identity_perceiver(rearrange(embedding, "b refs w -> (b refs) w").to(pixels), dense.last)
        id_tokens = rearrange(tokens, "(b refs) n w -> b (refs n) w", b=len(pixels))
        return PhotoMakerTokens(id_tokens=id_tokens, dense=dense)

    @classmethod
    def from_published(
        cls,
        path: str | Path,
        settings: PhotoMakerSettings | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load the published half-precision file strictly and convert it to `dtype`.

        Raises:
            WeightsError: The file cannot be read safely, or its tensors are not exactly those of the encoder.
        """
        state = read_published(path)
        # Buffers are allocated: the ViT's position ids are not in the file.
        with init_empty_weights(include_buffers=False):
            encoder = cls(settings)
        refuse_differences(
            encoder.published_shapes(),
            shapes_of(state),
            what=f"PhotoMaker-V2 at {path}",
            altered=find_altered(Path(path).parent),
            remedy=_REMEDY,
        )
        encoder.load_state_dict(from_published_names(state), strict=True, assign=True)
        return encoder.to(dtype).eval()

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors under their published names."""
        return shapes_of(to_published_names(self.state_dict()))

    def published_state(self) -> dict[str, Tensor]:
        """All tensors under their published names, as `read_published` gives them."""
        return to_published_names(self.state_dict())


def read_published(path: str | Path) -> dict[str, Tensor]:
    """Read the encoder part of a published file: a safetensors file, or a torch pickle with `weights_only`.

    Raises:
        WeightsError: The file is missing, damaged, holds other things than tensors, or has other parts.
    """
    path = Path(path)
    parts = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if set(parts) != set(_PARTS):
        raise WeightsError(
            f"{path} holds the parts {', '.join(sorted(parts)) or 'none'}; PhotoMaker-V2 has {' and '.join(_PARTS)}. "
            f"{_REMEDY}"
        )
    refuse_not_finite(parts["id_encoder"], what=f"PhotoMaker-V2 at {path}", remedy=_REMEDY)
    return parts["id_encoder"]


def fill_from_photomaker(adapter: nn.Module, path: str | Path) -> None:
    """Load `face_encoder` and `identity_perceiver`, the frozen parts of a full-size Magic Mirror, from the file.

    Its trained parts, such as the fuse module in T5's space, its dtype and its device are not changed.

    Raises:
        ConfigError: The adapter is on the meta device.
        WeightsError: The file cannot be read, or its tensors are not those of these two parts.
    """
    if any(tensor.is_meta for tensor in (*adapter.parameters(), *adapter.buffers())):
        raise ConfigError(f"The {type(adapter).__name__} is on the meta device. Build it on a real one to fill it.")
    published = read_published(path)
    state = {
        name: tensor for name, tensor in from_published_names(published).items() if name.startswith(_frozen_prefixes())
    }
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in adapter.state_dict().items()
        if name.startswith(_frozen_prefixes())
    }
    refuse_differences(
        expected,
        shapes_of(state),
        what=f"PhotoMaker-V2 at {path}, for a {type(adapter).__name__},",
        altered=find_altered(Path(path).parent),
        remedy=f"Make the adapter with `cogvideox_5b_config`. {_REMEDY}",
    )
    for part in ("face_encoder", "identity_perceiver"):
        part_state = {
            name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")
        }
        adapter.get_submodule(part).load_state_dict(part_state, strict=True)


def from_published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours; the others stay."""
    return _rename(state, PUBLISHED_PREFIXES.items())


def to_published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names to the published ones."""
    return _rename(state, ((own, published) for published, own in PUBLISHED_PREFIXES.items()))


def _rename(state: Mapping[str, Tensor], prefixes: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    pairs = tuple(prefixes)
    renamed = {}
    for name, tensor in state.items():
        old, new = next(((old, new) for old, new in pairs if name.startswith(old)), ("", ""))
        renamed[new + name[len(old) :]] = tensor
    return renamed


def _frozen_prefixes() -> tuple[str, ...]:
    return tuple(PUBLISHED_PREFIXES.values())


def _read_pickle(path: Path) -> dict[str, dict[str, Tensor]]:
    parts = read_pickle(path, remedy=_REMEDY)
    if not all(isinstance(part, dict) for part in parts.values()):
        raise WeightsError(f"{path} holds no dictionary of state dicts. {_REMEDY}")
    return parts


def _read_safetensors(path: Path) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {name.partition(".")[0]: {} for name in read_file_shapes(path)}
    for name, tensor in read_tensors(path, only=lambda name: name.startswith("id_encoder."), remedy=_REMEDY).items():
        parts["id_encoder"][name.removeprefix("id_encoder.")] = tensor
    return parts
