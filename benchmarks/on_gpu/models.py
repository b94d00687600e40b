"""CogVideoX, its VAE and Magic Mirror with random weights, created on their device."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity

M = TypeVar("M", bound=nn.Module)
KIND = "CogVideoX{}Block3D"


@dataclass(frozen=True, kw_only=True)
class Size:
    """One of the two sizes that the script runs at."""

    name: str
    heads: int
    layers: int
    head_width: int
    text_width: int
    text_tokens: int
    vae_widths: tuple[int, ...]
    vae_layers: int
    latent_frames: int
    latent_height: int
    latent_width: int
    decoder_width: int
    matrix: int
    """Side of the matrices of the machine's matrix product."""
    mirror: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return 4 * (self.latent_frames - 1) + 1


FULL = Size(
    name="CogVideoX-5B", heads=48, layers=42, head_width=64, text_width=4096, text_tokens=226,
    vae_widths=(128, 256, 256, 512), vae_layers=3, latent_frames=13, latent_height=60, latent_width=90,
    decoder_width=256, matrix=8192,
)  # fmt: skip
DRY = Size(
    name="dry run", heads=2, layers=2, head_width=16, text_width=16, text_tokens=8, vae_widths=(8, 8, 8, 8),
    vae_layers=1, latent_frames=3, latent_height=6, latent_width=6, decoder_width=16, matrix=64,
    mirror={
        "encoder": "vit", "encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "image_size_px": 16,
        "patch_size_px": 8, "embedding_width": 16, "identity_width": 16, "identity_depth": 1, "face_tokens": 4,
        "face_width": 16, "face_depth": 1, "head_width": 8, "norm_width": 8, "norm_hidden_width": 8,
    },
)  # fmt: skip


def make(build: Callable[[], M], device: torch.device, dtype: torch.dtype) -> M:
    """Build a model without memory, then give it random weights where it stays."""
    with torch.device("meta"):
        model = build()
        nn.Module.to(model, dtype)  # diffusers' own `to` warns about dtypes.
    model.to_empty(device=device)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            tensor.data.zero_()
        elif tensor.dim() > 1:
            nn.init.normal_(tensor.data, std=0.02)
        else:  # Norms multiply by one; nothing is shifted.
            tensor.data.fill_(1.0 if name.endswith(("weight", "std")) else 0.0)
    return model.requires_grad_(False).eval()


def make_transformer(size: Size, device: torch.device, dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    return make(
        lambda: CogVideoXTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_width,
            num_layers=size.layers,
            text_embed_dim=size.text_width,
            max_text_seq_length=size.text_tokens,
            sample_width=size.latent_width,
            sample_height=size.latent_height,
            sample_frames=size.frames,
            use_rotary_positional_embeddings=True,
        ),
        device,
        dtype,
    )


def make_vae(size: Size, device: torch.device, dtype: torch.dtype) -> AutoencoderKLCogVideoX:
    widths: Any = size.vae_widths
    return make(
        lambda: AutoencoderKLCogVideoX(
            down_block_types=(KIND.format("Down"),) * 4,
            up_block_types=(KIND.format("Up"),) * 4,
            block_out_channels=widths,
            layers_per_block=size.vae_layers,
            latent_channels=16,
            norm_num_groups=min(32, min(widths) // 4),
            sample_height=8 * size.latent_height,
            sample_width=8 * size.latent_width,
        ),
        device,
        dtype,
    )


def make_mirror(size: Size, transformer: Any, device: torch.device, dtype: torch.dtype) -> MagicMirror:
    config = MagicMirror.cogvideox_5b_config(transformer.config, **size.mirror)
    return make(lambda: MagicMirror(**config), device, dtype)


def make_identity(mirror: MagicMirror, like: Tensor) -> MagicMirrorIdentity:
    """One person with random tokens: encoders are no part of a step."""
    tokens = mirror.config["tokens_per_reference"]
    projection = next(m for m in mirror.norm_projection.modules() if isinstance(m, nn.Linear))
    id_tokens = torch.randn(1, tokens, projection.in_features // tokens)  # CAN's projection reads all of x_id.
    face_tokens = torch.randn(1, mirror.config["face_tokens"], mirror.config["width"])
    return MagicMirrorIdentity(id_tokens=id_tokens.to(like), face_tokens=face_tokens.to(like))


def make_inputs(size: Size, device: torch.device, dtype: torch.dtype, *, batch: int = 2) -> dict[str, Any]:
    """Inputs of a transformer at a step; two rows are the two CFG branches."""
    generator = torch.Generator("cpu").manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    grid = (size.latent_height // 2, size.latent_width // 2)
    rope = get_3d_rotary_pos_embed(
        size.head_width, ((0, 0), grid), grid, temporal_size=size.latent_frames, device=device
    )
    return {
        "hidden_states": draw(batch, size.latent_frames, 16, size.latent_height, size.latent_width),
        "encoder_hidden_states": draw(batch, size.text_tokens, size.text_width),
        "timestep": torch.full((batch,), 500, device=device),
        "image_rotary_emb": rope,
        "return_dict": False,
    }
