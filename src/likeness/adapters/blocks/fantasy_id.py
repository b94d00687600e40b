"""Identity tokens added to the video behind a frozen block: Eq. 2 of FantasyID (arXiv:2502.13995v1).

Z + F_l(Attention(Z W_q, V_F W_k, V_F W_v)), each adapted layer with weights of its own. F_l's last layer
starts at zero, so an untrained adapter is the base bit for bit. Rows without an identity get nothing added.
"""

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu

from likeness.adapters.blocks.attention import Rope
from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.errors import ConfigError

Grid = tuple[int, int, int]
"""Frames, rows and columns of the video's tokens."""


class LayerModel(nn.Module):
    """F_l: a separable convolution over each frame's tokens with a norm, beside which its input goes on as it is.

    The paper calls it lightweight: 3x3 in each channel, then 1x1 between channels (docs/papers/fantasy_id.md, row 10).
    The norm's gain and the 1x1 part start at zero: at first F_l is the attention's plain output layer, and the neighborhood
    comes in as it is of use. A convolution and a norm that all had to pass were slower to learn the person.

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
    """In the place of F_l: the attention's own output layer, as in a plain adapter. It starts at zero."""

    def __init__(self, width: int, output_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, output_width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor, _grid: Grid) -> Tensor:
        return self.linear(x)


class InjectionLayer(nn.Module, AttentionModuleMixin):
    """The trained part of one adapted block: W_q, W_k, W_v and F_l of one layer.

    Both inputs are normed first, as in the authors' released code: the states of a video transformer grow by orders
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
                f"`head_width` is {head_width}, which does not divide the injection's width {inner_width}. Take another."
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

    "Added" in the name makes diffusers' `fuse_qkv_projections` refuse instead of doing nothing without a word.
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


class KVCache:
    """K and V of one identity in every layer, computed once and kept while sampling.

    It has the methods of `ModulationCache`: nothing else of this method depends on the identity alone.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def suits(_transformer: nn.Module) -> bool:
        return True

    def enter(self, *_told: Any) -> None:
        """Nothing depends on the step."""

    def restore(self) -> None:
        """Forget K and V: a pass with gradients comes, or another prompt."""
        self._kept.clear()

    def close(self) -> None:
        self._kept.clear()

    @torch.no_grad()
    def of(self, number: int, layer: InjectionLayer, context: Tensor) -> tuple[Tensor, Tensor]:
        if number not in self._kept:
            self._kept[number] = layer.keys_and_values(context)
        return self._kept[number]


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
        condition, rest = self.told(attention_kwargs)
        video, text = self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, rest)
        if condition is None or self.layer is None or not self.acts(condition.acting):
            return video, text
        rows, stock_rows = condition.split(len(video))
        if not rows:
            return video, text
        assert condition.grid is not None
        index = torch.tensor(rows, device=video.device)
        keys, values = self._keys(condition, index, video)
        z = video if not stock_rows else video[index]
        added = self.layer(z, keys, values, condition.grid)
        added = (added if condition.scale == 1 else condition.scale * added).to(video)
        return (video.index_add(0, index, added) if stock_rows else video + added), text

    def _keys(self, condition: FaceCondition, index: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of the rows that have an identity."""
        assert self.layer is not None
        context = condition.face.to(video)
        if isinstance(condition.sampling_cache, KVCache):
            keys, values = condition.sampling_cache.of(self.number, self.layer, context)
        else:
            keys, values = self.layer.keys_and_values(context)
        if len(index) == len(context) and condition.active is None:
            return keys, values
        whose = index % len(context)
        return keys[whose], values[whose]


def wrap(block: CogVideoXBlock, layer: nn.Module | None, number: int) -> InjectionBlock:
    """Put an injection behind a block, or behind none of it."""
    assert layer is None or isinstance(layer, InjectionLayer)
    return InjectionBlock(block, layer, number=number)
