"""A frozen CogVideoX block inside a method's: what every method's block has in common.

The base block stays its child, so that offload finds it; state dicts show the base alone, under its stock names, so
that saving the transformer stays stock. What the layers do is each method's own (`block.py`, `injection.py`).
"""

from typing import Any, Generic, TypeVar

from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from likeness.adapters.conditioning.condition import CONDITION_KEY, FaceCondition

Layer = TypeVar("Layer", bound=nn.Module)


class AdaptedBlock(nn.Module, Generic[Layer]):
    """A frozen block, and the trained layer that acts in it; None where nothing does.

    `forward` takes the arguments of the stock block and returns its two states.
    """

    def __init__(self, base: CogVideoXBlock, layer: Layer | None, *, number: int = 0) -> None:
        super().__init__()
        self.base = base
        self.layer = layer
        self.number = number
        self.train(base.training)
        self._register_state_dict_hook(_as_stock_state_dict)
        self.register_load_state_dict_pre_hook(_from_stock_state_dict)

    def __init_subclass__(cls, **options: Any) -> None:
        """Register the class: caches and layer skipping look blocks up by their exact class."""
        super().__init_subclass__(**options)
        states = TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
        TransformerBlockRegistry.register(cls, states)

    def acts(self, acting: frozenset[int] | None) -> bool:
        """Whether the identity acts here, given the blocks in which it does."""
        return self.layer is not None and (acting is None or self.number in acting)

    @staticmethod
    def told(attention_kwargs: dict[str, Any] | None) -> tuple[FaceCondition | None, dict[str, Any]]:
        """Part what the method says from what is meant for the stock block."""
        rest = dict(attention_kwargs or {})
        return rest.pop(CONDITION_KEY, None), rest


def _as_stock_state_dict(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    """Show the base's weights under their stock names and none of the adapter's, so that saving stays stock."""
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        if name.startswith(f"{prefix}base."):
            state[prefix + name.removeprefix(f"{prefix}base.")] = value


def _from_stock_state_dict(module: nn.Module, state: dict[str, Tensor], prefix: str, *_args: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}base.{name.removeprefix(prefix)}"] = state.pop(name)
    layer = module.layer if isinstance(module, AdaptedBlock) else None
    if layer is not None:
        state.update(layer.state_dict(prefix=f"{prefix}layer."))
