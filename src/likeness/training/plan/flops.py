"""Tokens and FLOPs of one sample of a training step.

A product of an (m, k) and a (k, n) matrix is 2 m k n FLOPs. For a block of width w over N tokens (video, text and the
method's), the forward pass is 24 N w^2 (attention's four matrices, and a feed-forward layer four times as wide) and
4 N^2 w (scores, and sums of values). The backward pass of a frozen matrix has only the gradient of its input, 1 times
the forward pass; of a trained one 2 times; of attention 2.5 times, because kernels compute the scores again. Gradient
checkpointing adds a forward pass. Left out are norms, convolutions of the base, and the encoders of references, which
run over some hundred tokens.
"""

from dataclasses import dataclass
from typing import Any

from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.files.settings import FileDataSettings
from likeness.training.plan.sizes import MetaModels

LATENT_PX = 8
FRAMES_PER_LATENT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Tokens of one sample."""

    video: int
    text: int
    face: int
    """Tokens of the method that pass through adapted blocks; 0 for FantasyID."""
    latent: tuple[int, int, int]
    """Frames, height and width of the latents."""

    @property
    def stock(self) -> int:
        """Tokens of a block that is not adapted."""
        return self.video + self.text

    @property
    def adapted(self) -> int:
        """Tokens of an adapted block."""
        return self.stock + self.face


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardFlops:
    """FLOPs of one sample, forward."""

    linear: float
    """Products with frozen matrices."""
    attention: float
    method: float
    """Products with the method's matrices in blocks."""

    @property
    def forward(self) -> float:
        """All of the forward pass."""
        return self.linear + self.attention + self.method

    def step(self, *, is_checkpointed: bool) -> float:
        """Forward and backward pass."""
        backward = self.linear + 2.5 * self.attention + 2 * self.method
        return backward + self.forward * (2 if is_checkpointed else 1)


def count_tokens(models: MetaModels, data: FileDataSettings, *, is_image: bool) -> Tokens:
    """Tokens of an image, or of a clip of full length at the size of the data."""
    height, width = frame_size_px(data)
    patch = int(models.config.patch_size)
    frames = 1 if is_image else (data.num_frames - 1) // FRAMES_PER_LATENT + 1
    latent = (frames, height // LATENT_PX, width // LATENT_PX)
    method: Any = models.method
    has_stream = isinstance(method, MagicMirror) and method.config["has_face"]
    return Tokens(
        video=frames * (latent[1] // patch) * (latent[2] // patch),
        text=int(models.config.max_text_seq_length),
        face=int(method.config["face_tokens"]) if has_stream else 0,
        latent=latent,
    )


def frame_size_px(data: FileDataSettings) -> tuple[int, int]:
    """Height and width of a frame; with `resolution_px` those of a square, which all buckets are about as large as."""
    if data.height_px is not None and data.width_px is not None:
        return data.height_px, data.width_px
    assert data.resolution_px is not None
    side = data.resolution_px // 16 * 16
    return side, side


def count_forward_flops(models: MetaModels, tokens: Tokens) -> ForwardFlops:
    """FLOPs of the forward pass of one sample."""
    width, total = models.width, int(models.config.num_layers)
    adapted = len(models.method.layers)
    with_face, without = tokens.adapted, tokens.stock
    square = 24 * width**2
    linear = square * (adapted * with_face + (total - adapted) * without)
    attention = 4 * width * (adapted * with_face**2 + (total - adapted) * without**2)
    return ForwardFlops(linear=linear, attention=attention, method=adapted * _layer(models, tokens))


def context_tokens(method: FantasyID) -> int:
    """Tokens of V_F of one person with one reference."""
    config: Any = method.config
    if config["has_vertices"]:
        return int(config["num_vertices"][-1])
    return (config["image_size_px"] // config["patch_size_px"] // config["downsampling"]) ** 2


def _layer(models: MetaModels, tokens: Tokens) -> float:
    """Products of the method in one adapted block."""
    method, width = models.method, models.width
    config: Any = method.config
    if isinstance(method, FantasyID):
        inner, context = config["injection_width"], context_tokens(method)
        kernel_elements = 9 if config["is_layer_aware"] else 0  # The 3x3 kernel of F_l.
        products = tokens.video * (2 * 2 * width * inner + 2 * kernel_elements * inner)
        return products + 4 * tokens.video * context * inner + 4 * context * config["context_width"] * inner
    # K and V of x_face, and the attention of all tokens to them.
    return 4 * tokens.face * width**2 + 4 * tokens.adapted * tokens.face * width
