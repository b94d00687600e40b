"""Identity tokens added to the video behind a frozen block: Eq. 2 of FantasyID (arXiv:2502.13995v1).

Z + F_l(Attention(Z W_q, V_F W_k, V_F W_v)), each adapted layer with weights of its own. F_l's last layer
starts at zero, so an untrained adapter is the base bit for bit. Nothing is added to rows without an identity.
"""

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.regions import Grid
from likeness.backbones.attention import Rope
from likeness.errors import ConfigError


class LayerModel(nn.Module):
    """F_l: a separable convolution over each frame's tokens with a norm and a residual connection.

    The paper calls it lightweight: 3x3 in each channel, then 1x1 between channels (docs/papers/fantasy_id.md, row 10).
    The norm's gain and the 1x1 part start at zero, so at first F_l is the attention's plain output layer. Without the
    residual connection the identity was learned more slowly.

    Shapes:
        x: (batch, tokens, width)
        returns: (batch, tokens, output_width)
    """

    def __init__(self, width: int, output_width: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, output_width)
        for zero in (self.norm.weight, self.output.weight, self.output.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        frames, rows, columns = grid
        pictures = rearrange(x, "b (f y x) w -> (b f) w y x", f=frames, y=rows, x=columns)
        mixed = rearrange(self.depthwise(pictures), "(b f) w y x -> b (f y x) w", f=frames)
        return self.output(x + silu(self.norm(mixed)))


class PlainOutput(nn.Module):
    """The attention's own output layer instead of F_l (ablation). It starts at zero."""

    def __init__(self, width: int, output_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, output_width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor, _grid: Grid) -> Tensor:
        return self.linear(x)


class InjectionLayer(nn.Module, AttentionModuleMixin):
    """The trained part of one adapted block: W_q, W_k, W_v and F_l of one layer.

    Both inputs are normalized first, as in the authors' released code: the states of a video transformer grow by orders
    of magnitude from layer to layer.

    Shapes:
        video: (batch, video_tokens, width): Z_l
        keys, values: (batch, heads, context_tokens, head_width), from `keys_and_values`
        returns: (batch, video_tokens, width), to be added
    """

    _supports_qkv_fusion = False

    def __init__(
        self,
        width: int,
        *,
        context_width: int,
        inner_width: int,
        head_width: int,
        is_layer_aware: bool = True,
    ) -> None:
        super().__init__()
        if inner_width % head_width:
            raise ConfigError(
                f"`head_width` is {head_width}, which does not divide the injection's width {inner_width}. "
                "Take another."
            )
        self.num_heads = inner_width // head_width
        self.norm1 = nn.LayerNorm(context_width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q_video = nn.Linear(width, inner_width, bias=False)
        self.to_kv_context = nn.Linear(context_width, 2 * inner_width, bias=False)
        self.layer_model = (LayerModel if is_layer_aware else PlainOutput)(inner_width, width)
        self.processor = IdentityAddedAttnProcessor()

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of (batch, context_tokens, context_width): they depend on the identity alone."""
        key, value = rearrange(
            self.to_kv_context(self.norm1(context)), "b n (kv h d) -> kv b h n d", kv=2, h=self.num_heads
        )
        return key, value

    def forward(self, video: Tensor, keys: Tensor, values: Tensor, grid: Grid) -> Tensor:
        return self.layer_model(self.processor(self, self.norm2(video), keys, values), grid)


class IdentityAddedAttnProcessor:
    """The attention through diffusers' dispatch, so that attention backends apply to it.

    "Added" in the name makes diffusers' `fuse_qkv_projections` raise instead of doing nothing.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(self, layer: InjectionLayer, video: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query = layer.to_q_video(video).unflatten(-1, (layer.num_heads, -1))
        mixed = dispatch_attention_fn(
            query,
            keys.transpose(1, 2).to(query),
            values.transpose(1, 2).to(query),
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return mixed.flatten(2)


class InjectionBlock(AdaptedBlock[InjectionLayer]):
    """A frozen block, and Eq. 2 behind it.

    Shapes:
        hidden_states: (batch, video_tokens, width)
        encoder_hidden_states: (batch, text_tokens, width)
        temb: (batch, time_width)
        returns: both states
    """

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Rope | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        condition, rest = self.split_kwargs(attention_kwargs)
        video, text = self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, rest)
        if condition is None or self.block_adapter is None or not self.is_active(condition.active_blocks):
            return video, text
        if not condition.split(len(video))[0]:
            return video, text
        if condition.sampling_cache is not None:
            return condition.sampling_cache.run_block(self, (video, text), temb, image_rotary_emb, condition)
        keys, values = self.block_adapter.keys_and_values(condition.face.to(video))
        return self.inject(video, keys, values, condition), text

    def inject(self, video: Tensor, keys: Tensor, values: Tensor, condition: FaceCondition) -> Tensor:
        """Add the layer's output to the rows that have an identity.

        Shapes:
            video, returns: (batch, video_tokens, width)
            keys, values: (identities, heads, context_tokens, head_width)
        """
        assert self.block_adapter is not None
        assert condition.layout.grid is not None
        rows, stock_rows = condition.split(len(video))
        index = torch.tensor(rows, device=video.device)
        if len(index) != len(keys) or condition.layout.active is not None:
            identities = index % len(keys)
            keys, values = keys[identities], values[identities]
        z = video[index] if stock_rows else video
        added = self.block_adapter(z, keys, values, condition.layout.grid)
        added = (added if condition.scale == 1 else condition.scale * added).to(video)
        return video.index_add(0, index, added) if stock_rows else video + added


def wrap(block: CogVideoXBlock, block_adapter: nn.Module | None, block_index: int) -> InjectionBlock:
    """Return the block with an injection behind it, or without one where `block_adapter` is None."""
    assert block_adapter is None or isinstance(block_adapter, InjectionLayer)
    return InjectionBlock(block, block_adapter, block_index=block_index)
