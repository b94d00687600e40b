"""The id descriptor of FantasyID's released profile: the computation of the published inference code, quirks included.

It differs from the paper in many places (docs/papers/fantasy_id.md lists them). Tensors that do not affect the output
of the published code are parameters here too, so that checkpoints are saved unchanged, but they are not used.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from likeness.errors import ConfigError
from likeness.identity.encoders.abstractor import Abstractor
from likeness.identity.encoders.eva import EvaVisionEncoder
from likeness.identity.encoders.perceiver import feed_forward
from likeness.identity.mesh.vertex_decoder import VertexDecoder
from likeness.identity.shape_fusion import ResConv1D
from likeness.identity.tokens import PersonTokens
from likeness.methods.fantasy_id.descriptor import DescriptorConfig

NUM_SCALES, LAYERS_PER_SCALE = 5, 2
"""Depths of the image encoder that are mapped, and layers for each of them."""
NUM_QUERIES, NUM_ID_TOKENS, ID_WIDTH = 144, 5, 1280
"""Sizes of two unused inputs: learned queries, and a recognizer's embedding with CLIP's class token."""
REDUCER_STRIDES = (4, 4, 2, 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReleasedTokens(PersonTokens):
    """A person, and the picture that is the first frame of the video.

    Shapes:
        picture: (batch, height, width, 3) uint8: the first reference's head
    """

    picture: Tensor


def _mapping(width: int, hidden_width: int, output_width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden_width),
        nn.LayerNorm(hidden_width),
        nn.LeakyReLU(),
        nn.Linear(hidden_width, hidden_width),
        nn.LayerNorm(hidden_width),
        nn.LeakyReLU(),
        nn.Linear(hidden_width, output_width),
    )


class ReleasedAbstractor(nn.Module):
    """Ten abstractors. The output is that of the last one alone, because each overwrites the output of the one before.

    The published code adds position embeddings in place. The two layers of one scale share their input, so the input of
    the last one includes the embedding of the one before it. The others have no other effect: 17.7 million of the 144.2
    million published parameters are used.

    Shapes:
        features: (batch, 1 + patches, width): the encoder's deepest features, class token first
        returns: (batch, face_tokens, output_width)
    """

    def __init__(self, config: DescriptorConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.latents = nn.Parameter(torch.zeros(1, NUM_QUERIES, width))
        self.proj_out = nn.Parameter(width**-0.5 * torch.randn(width, config.context_width))
        self.layers = nn.ModuleList(
            nn.ModuleList([_abstractor(config), feed_forward(width)]) for _ in range(NUM_SCALES * LAYERS_PER_SCALE)
        )
        for scale in range(NUM_SCALES):
            self.add_module(f"mapping_{scale}", _mapping(width, width, width))
        self.id_embedding_mapping = _mapping(ID_WIDTH, width, NUM_ID_TOKENS * width)

    def forward(self, features: Tensor) -> Tensor:
        patches = self.get_submodule(f"mapping_{NUM_SCALES - 1}")(features)[:, 1:]
        before = self.get_parameter(f"layers.{len(self.layers) - 2}.0.pos_emb")
        abstractor, feed_forward = self.layers[-1].children()
        return feed_forward(abstractor(patches + before)) @ self.proj_out


def _abstractor(config: DescriptorConfig) -> Abstractor:
    return Abstractor(
        config.encoder_width,
        output_width=config.encoder_width,
        num_patches=config.patches**2,
        output_side=config.patches // config.downsampling,
        hidden_width=config.abstractor_hidden_width,
    )


class ReleasedDescriptor(nn.Module):
    """From a picture and posed vertices to the 115 tokens that every injection attends to.

    These are 36 face tokens, and 79 tokens of the mesh's 5,023 vertices fused with the face.

    Shapes:
        pixels: (batch, references, 3, height, width) in [-1, 1]: heads on FFHQ's template
        vertices: (batch, vertices, 3), posed, in meters
        returns: (batch, references * face_tokens + vertex_tokens, context_width)
    """

    def __init__(self, config: DescriptorConfig) -> None:
        super().__init__()
        width = config.vertex_widths[-1]
        self.face_encoder = EvaVisionEncoder(
            config.encoder_width,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            image_size_px=config.image_size_px,
            patch_size_px=config.patch_size_px,
        )
        self.abstractor = ReleasedAbstractor(config)
        self.vertex_encoder = VertexDecoder(
            width,
            face_width=config.context_width,
            num_vertices=config.num_vertices,
            spiral_length=config.spiral_length,
            fusion_depth=config.fusion_depth,
            fusion_heads=config.fusion_heads,
        )
        widths = [max(width, config.context_width // 2**halvings) for halvings in (3, 2, 1, 0)]
        self.reducer = ResConv1D(width, widths, strides=REDUCER_STRIDES)

    def forward(self, pixels: Tensor, vertices: Tensor | None) -> Tensor:
        features = self.face_encoder(rearrange(pixels, "b refs c y x -> (b refs) c y x"))
        return self.describe(features, vertices, references=pixels.shape[1])

    def describe(self, features: Tensor, vertices: Tensor | None, *, references: int = 1) -> Tensor:
        """Compute the tokens from the features of the image encoder."""
        if vertices is None:
            raise ConfigError(
                "The released weights need a head's vertices, and none were given. Pass `vertices` to `encode`; "
                "docs/weights.md says how to make them."
            )
        face = self.abstractor(features)
        # Several pictures (not in the published code): their tokens are concatenated.
        face = rearrange(face, "(b refs) n w -> b (refs n) w", refs=references)
        shape = self.vertex_encoder(vertices, face)  # (batch, vertices, width)
        return torch.cat([face, self.reducer(shape.to(face))], dim=1)
