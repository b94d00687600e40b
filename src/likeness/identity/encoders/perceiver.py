"""Perceivers: a few queries attend to many dense features and become a few tokens.

`Resampler` has the layer structure and parameter names of the one in PhotoMaker-V2, so that its weights load.
`IdentityPerceiver` is Magic Mirror's tau_id (arXiv:2501.03931v1, Eq. 4) and `FacePerceiver` its tau_face (Eq. 3).
Their inputs come from the encoders in `vit.py`.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from likeness.errors import ConfigError


def feed_forward(width: int) -> nn.Sequential:
    """A pre-norm feed-forward without biases and without a residual connection."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class LatentAttention(nn.Module):
    """Latents attend to features and to each other: keys and values come from both, concatenated.

    Shapes:
        features: (batch, tokens, width)
        latents: (batch, latents, width)
        returns: (batch, latents, width)
    """

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        if width % head_width:
            raise ConfigError(f"`head_width` is {head_width}, which does not divide the perceiver's width {width}.")
        self.num_heads = width // head_width
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        features, latents = self.norm1(features), self.norm2(latents)
        key_value = self.to_kv(torch.cat([features, latents], dim=1))  # (batch, tokens + latents, 2 width)
        query = rearrange(self.to_q(latents), "b n (h d) -> b h n d", h=self.num_heads)
        key, value = rearrange(key_value, "b n (kv h d) -> kv b h n d", kv=2, h=self.num_heads)
        attended = scaled_dot_product_attention(query, key, value)
        return self.to_out(rearrange(attended, "b h n d -> b n (h d)"))


class Resampler(nn.Module):
    """Layers of attention and feed-forward on the latents, as PhotoMaker-V2's `FacePerceiverResampler`.

    Shapes:
        latents: (batch, latents, width)
        features: (batch, tokens, feature_width)
        returns: (batch, latents, width)
    """

    def __init__(self, width: int, *, feature_width: int, depth: int, head_width: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(feature_width, width)
        self.layers = nn.ModuleList(
            nn.ModuleList([LatentAttention(width, head_width), feed_forward(width)]) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        features = self.proj_in(features)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, feed_forward = layer
            latents = attention(features, latents) + latents
            latents = feed_forward(latents) + latents
        return self.norm_out(self.proj_out(latents))


class IdentityPerceiver(nn.Module):
    """x_id = tau_id(q_id, f), Eq. 4: tokens made from the recognizer's embedding attend to the dense features.

    The embedding gives the queries q_id; f are the features of the last block. The residual around the resampler
    keeps the information of the embedding in the tokens.

    Shapes:
        embedding: (batch, embedding_width)
        features: (batch, tokens, feature_width)
        returns: (batch, num_tokens, width)
    """

    def __init__(
        self,
        width: int,
        *,
        embedding_width: int,
        feature_width: int,
        depth: int,
        head_width: int,
        num_tokens: int = 2,
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.token_proj = nn.Sequential(
            nn.Linear(embedding_width, 4 * embedding_width),
            nn.GELU(),
            nn.Linear(4 * embedding_width, num_tokens * width),
        )
        self.token_norm = nn.LayerNorm(width)
        self.perceiver_resampler = Resampler(width, feature_width=feature_width, depth=depth, head_width=head_width)

    def forward(self, embedding: Tensor, features: Tensor) -> Tensor:
        query = self.token_norm(rearrange(self.token_proj(embedding), "b (n w) -> b n w", n=self.num_tokens))
        return query + self.perceiver_resampler(query, features)


class FacePerceiver(nn.Module):
    """x_face = tau_face(q_face, f), Eq. 3: learned queries attend to the features; a projection sets the width.

    The features of several references of one person are concatenated, so a query may attend to any of them.

    Shapes:
        features: (batch, tokens of all references, feature_width)
        returns: (batch, num_tokens, output_width)
    """

    def __init__(
        self,
        width: int,
        *,
        output_width: int,
        feature_width: int,
        depth: int,
        head_width: int,
        num_tokens: int = 32,
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(num_tokens, width) * width**-0.5)
        self.resampler = Resampler(width, feature_width=feature_width, depth=depth, head_width=head_width)
        self.project = nn.Linear(width, output_width)

    def forward(self, features: Tensor) -> Tensor:
        query = repeat(self.query, "n w -> b n w", b=features.shape[0]).to(features.dtype)
        return self.project(self.resampler(query, features))
