"""V_F, the id descriptor of FantasyID's paper profile: Secs. 3.2 to 3.4 of arXiv:2502.13995v1, from top to bottom."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from likeness.errors import ConfigError
from likeness.identity.encoders.abstractor import Abstractor
from likeness.identity.encoders.perceiver import FacePerceiver
from likeness.identity.encoders.vit import ClipVisionEncoder, SmallVisionTransformer
from likeness.identity.mesh.vertices import VertexEncoder
from likeness.identity.shape_fusion import FusionTransformer, ResConv1D


@dataclass(frozen=True, kw_only=True, slots=True)
class DescriptorConfig:
    """Configuration of `Descriptor` and `ReleasedDescriptor`; `FantasyID` documents each field."""

    encoder: Literal["vit", "clip", "eva"]
    encoder_width: int
    encoder_depth: int
    encoder_heads: int
    encoder_stem: Sequence[int]
    image_size_px: int
    patch_size_px: int
    abstractor: Literal["convolutions", "queries"]
    downsampling: int
    abstractor_hidden_width: int
    face_width: int
    num_vertices: Sequence[int]
    vertex_widths: Sequence[int]
    spiral_length: int
    fusion_depth: int
    fusion_heads: int
    context_width: int
    has_vertices: bool

    @property
    def patches(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size_px // self.patch_size_px

    def __post_init__(self) -> None:
        if self.encoder_stem and self.encoder != "vit":
            raise ConfigError(
                f"`encoder_stem` is {tuple(self.encoder_stem)} with the encoder {self.encoder!r}, which has its "
                "own patch embedding. Leave it out, or take the encoder 'vit'."
            )
        if self.image_size_px % self.patch_size_px or self.patches % self.downsampling:
            raise ConfigError(
                f"A picture of {self.image_size_px} px in patches of {self.patch_size_px} px, {self.downsampling} "
                "times down-sampled, is no whole number of tokens. Choose sizes that divide each other."
            )


class Descriptor(nn.Module):
    """From pictures and neutral vertices to V_F.

    Several pictures of one person give more face tokens X_F; the vertices are one shape.

    Shapes:
        pixels: (batch, references, 3, height, width) in [-1, 1]
        vertices: (batch, vertices, 3): V_s; None without the shape branch
        returns: (batch, coarse_vertices, context_width), or without vertices (batch, all face tokens, context_width)
    """

    def __init__(self, config: DescriptorConfig) -> None:
        super().__init__()
        encoder_class = (
            partial(SmallVisionTransformer, stem_widths=config.encoder_stem)
            if config.encoder == "vit"
            else ClipVisionEncoder
        )
        self.face_encoder = encoder_class(
            config.encoder_width,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            image_size_px=config.image_size_px,
            patch_size_px=config.patch_size_px,
        )
        side = config.patches // config.downsampling
        if config.abstractor == "convolutions":
            self.abstractor = Abstractor(
                config.encoder_width,
                output_width=config.face_width,
                num_patches=config.patches**2,
                output_side=side,
                hidden_width=config.abstractor_hidden_width,
            )
        else:
            self.abstractor = FacePerceiver(
                config.face_width,
                output_width=config.face_width,
                feature_width=config.encoder_width,
                depth=2,
                head_width=config.face_width // config.encoder_heads,
                num_tokens=side**2,
            )
        width = config.vertex_widths[-1]
        self.face_projection = nn.Sequential(
            nn.Linear(config.face_width, config.face_width), nn.GELU(), nn.Linear(config.face_width, width)
        )
        self.vertex_encoder = (
            VertexEncoder(config.vertex_widths, num_vertices=config.num_vertices, spiral_length=config.spiral_length)
            if config.has_vertices
            else None
        )
        self.fusion = FusionTransformer(width, depth=config.fusion_depth, num_heads=config.fusion_heads)
        self.reducer = ResConv1D.to_width(width, config.context_width)

    def forward(self, pixels: Tensor, vertices: Tensor | None) -> Tensor:
        return self.describe(self.read_faces(pixels), vertices)

    def read_faces(self, pixels: Tensor) -> Tensor:
        """Return X_F, (batch, all face tokens, C')."""
        references = pixels.shape[1]
        patches = self.face_encoder(rearrange(pixels, "b refs c y x -> (b refs) c y x")).last[:, 1:]
        x_f = self.face_projection(self.abstractor(patches))  # X_f, then X_F
        return rearrange(x_f, "(b refs) n w -> b (refs n) w", refs=references)

    def describe(self, x_f: Tensor, vertices: Tensor | None) -> Tensor:
        """Return V_F of face tokens X_F and vertices."""
        x_v = None if self.vertex_encoder is None else self._shape_tokens(vertices).to(x_f)
        return self.reducer(self.fusion(x_v, x_f))

    def _shape_tokens(self, vertices: Tensor | None) -> Tensor:
        assert self.vertex_encoder is not None
        if vertices is None:
            raise ConfigError(
                "This adapter needs a face's shape, and no vertices were given. Pass `vertices`, or set "
                "`shape_source` to a function that estimates them from pictures."
            )
        return self.vertex_encoder(vertices)
