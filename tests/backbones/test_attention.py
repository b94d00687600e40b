import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch.testing import assert_close

from likeness.backbones.attention import DispatchedAttnProcessor, use_dispatch, use_stock
from likeness.backbones.tiny import TextSettings, TransformerSettings, build_transformer
from likeness.errors import ConfigError

SIZES = TransformerSettings(
    num_heads=2, head_width=16, num_layers=2, time_width=8, text_length=5, size_px=32, num_frames=9
)


def make() -> tuple[CogVideoXTransformer3DModel, dict]:
    torch.manual_seed(0)
    transformer = build_transformer(SIZES, TextSettings(width=16))
    transformer.requires_grad_(False)
    inputs = {
        "hidden_states": torch.randn(2, 3, 16, 4, 4),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "timestep": torch.tensor([100, 100]),
        "image_rotary_emb": tuple(torch.randn(12, 16) for _ in range(2)),
        "return_dict": False,
    }
    return transformer, inputs


def test_matches_the_stock_processor():
    transformer, inputs = make()
    with torch.no_grad():
        stock = transformer(**inputs)[0]
        assert use_dispatch(transformer) == 2
        ours = transformer(**inputs)[0]
        plain = transformer(**(inputs | {"image_rotary_emb": None}))[0]
        use_stock(transformer)
        stock_plain = transformer(**(inputs | {"image_rotary_emb": None}))[0]
    assert_close(ours, stock, rtol=0, atol=1e-5)
    assert_close(plain, stock_plain, rtol=0, atol=1e-5)
    assert not torch.equal(ours, plain)


def test_gradients_are_those_of_the_stock_processor():
    gradients = []
    for change in (lambda _: None, use_dispatch):
        transformer, inputs = make()
        change(transformer)
        x = inputs["hidden_states"].requires_grad_()
        transformer(**inputs)[0].square().mean().backward()
        gradients.append(x.grad)
    assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)


def test_a_backend_reaches_every_attention():
    transformer, inputs = make()
    transformer.set_attention_backend("_native_math")  # Silently nothing for stock processors.
    assert not any(hasattr(p, "_attention_backend") for p in transformer.attn_processors.values())
    with torch.no_grad():
        stock = transformer(**inputs)[0]
        use_dispatch(transformer)
        transformer.set_attention_backend("_native_math")
        backends = {p._attention_backend.value for p in transformer.attn_processors.values()}
        assert backends == {"_native_math"}
        assert_close(transformer(**inputs)[0], stock, rtol=0, atol=1e-5)
    transformer.reset_attention_backend()


def test_a_transformer_without_stock_attention_is_refused():
    transformer, _ = make()
    use_dispatch(transformer)
    assert all(type(p) is DispatchedAttnProcessor for p in transformer.attn_processors.values())
    with pytest.raises(ConfigError, match="once"):
        use_dispatch(transformer)
