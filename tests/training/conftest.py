import pytest
import torch

from likeness.backbones import tiny


@pytest.fixture
def without_curves(monkeypatch):
    """Draw no curves at the end of a stage: a plot takes longer than the training of a test."""
    monkeypatch.setattr("likeness.training.engine.loop.draw_curves", lambda _log, _target: None)


@pytest.fixture(scope="session")
def frozen_pipe():
    """Make a frozen pipeline of a few thousand random weights that knows the words of some sentences."""

    def make(sentences):
        torch.manual_seed(0)
        tokenizer = tiny.build_tokenizer(sentences)
        text = tiny.TextSettings(width=32, num_heads=2, hidden_width=32, num_layers=1)
        transformer = tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=16)
        pipe = tiny.build_pipeline(
            tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4)),
            tiny.build_text_encoder(text, tokenizer),
            tokenizer,
            tiny.build_transformer(transformer, text),
        )
        for part in (pipe.vae, pipe.text_encoder, pipe.transformer):
            part.requires_grad_(False)
        # What ships has learned; a base that starts at zero would hide a method.
        for parameter in pipe.transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return pipe

    return make
