"""Base class of the blocks that methods put around a frozen CogVideoX block.

The frozen block stays a child module, so that offload finds it. State dicts contain the base alone, under its stock
names, so that a saved transformer is a stock one. The methods' blocks are in `magic_mirror.py` and `fantasy_id.py`.
"""

from typing import Any, Generic, TypeVar

from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from likeness.adapters.conditioning.condition import CONDITION_KEY, FaceCondition
from likeness.adapters.conditioning.identity_settings import ActiveBlocks

Layer = TypeVar("Layer", bound=nn.Module)


class AdaptedBlock(nn.Module, Generic[Layer]):
    """A frozen block with the trained adapter of a method; without one (None) where the block is not adapted.

    `forward` takes the arguments of the stock block and returns its two outputs.
    """

    def __init__(self, base: CogVideoXBlock, block_adapter: Layer | None, *, block_index: int = 0) -> None:
        super().__init__()
        self.base = base
        self.block_adapter = block_adapter
        self.block_index = block_index
        self.train(base.training)
        self._register_state_dict_hook(_as_stock_state_dict)
        self.register_load_state_dict_pre_hook(_from_stock_state_dict)

    def __init_subclass__(cls, **options: Any) -> None:
        """Register the class: diffusers' caches and layer skipping look blocks up by their exact class."""
        super().__init_subclass__(**options)
        states = TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
        TransformerBlockRegistry.register(cls, states)

    def is_active(self, active_blocks: ActiveBlocks) -> bool:
        """Whether this block is adapted and among the active ones."""
        return self.block_adapter is not None and (active_blocks is None or self.block_index in active_blocks)

    @staticmethod
    def split_kwargs(attention_kwargs: dict[str, Any] | None) -> tuple[FaceCondition | None, dict[str, Any]]:
        """Separate the method's condition from the arguments of the stock block."""
        rest = dict(attention_kwargs or {})
        return rest.pop(CONDITION_KEY, None), rest


def _as_stock_state_dict(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    """Replace the state by the base's weights under their stock names."""
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        if name.startswith(f"{prefix}base."):
            state[prefix + name.removeprefix(f"{prefix}base.")] = value


def _from_stock_state_dict(module: nn.Module, state: dict[str, Tensor], prefix: str, *_args: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}base.{name.removeprefix(prefix)}"] = state.pop(name)
    block_adapter = module.block_adapter if isinstance(module, AdaptedBlock) else None
    if block_adapter is not None:
        state.update(block_adapter.state_dict(prefix=f"{prefix}block_adapter."))
