from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch.testing import assert_close

from likeness.training.objectives import diffusion

SIZES_5B = {"num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 1, "sample_width": 90,
            "sample_height": 60, "sample_frames": 49, "text_embed_dim": 16, "time_embed_dim": 16}  # fmt: skip


def stock_positions(transformer, height_px, width_px, latent_frames):
    """What the stock pipeline passes to its transformer."""
    pipe: Any = SimpleNamespace(transformer=transformer, vae_scale_factor_spatial=8)
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipe, height_px, width_px, latent_frames, torch.device("cpu")
    )


@pytest.mark.parametrize(
    ("height_px", "width_px", "latent_frames"),
    [(480, 720, 13), (480, 480, 13), (480, 720, 1), (720, 480, 3), (256, 384, 5)],
)
def test_positions_are_those_of_the_stock_pipeline(height_px, width_px, latent_frames):
    transformer = CogVideoXTransformer3DModel(**SIZES_5B, use_rotary_positional_embeddings=True)
    latents = torch.zeros(1, latent_frames, 16, height_px // 8, width_px // 8)
    found = diffusion.rotary_embedding(transformer, latents)
    assert found is not None
    for ours, stock in zip(found, stock_positions(transformer, height_px, width_px, latent_frames), strict=True):
        assert len(ours) == latent_frames * (height_px // 16) * (width_px // 16)
        assert_close(ours, stock, rtol=0, atol=0)


def test_positions_of_cogvideox_1_5_are_those_of_the_stock_pipeline():
    sizes = {**SIZES_5B, "patch_size_t": 2, "sample_frames": 81, "patch_bias": False}
    transformer = CogVideoXTransformer3DModel(**sizes, use_rotary_positional_embeddings=True)
    found = diffusion.rotary_embedding(transformer, torch.zeros(1, 6, 16, 60, 90))
    assert found is not None
    for ours, stock in zip(found, stock_positions(transformer, 480, 720, 6), strict=True):
        assert_close(ours, stock, rtol=0, atol=0)


def test_a_base_without_rotary_positions_gets_none_and_denoises_rectangles():
    transformer = CogVideoXTransformer3DModel(**SIZES_5B, use_rotary_positional_embeddings=False)
    noisy = torch.randn(1, 13, 16, 60, 90)
    assert diffusion.rotary_embedding(transformer, noisy) is None
    small = CogVideoXTransformer3DModel(
        **{**SIZES_5B, "sample_width": 12, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 4},
        use_rotary_positional_embeddings=False,
    )
    noisy = torch.randn(2, 3, 16, 8, 12)
    velocity = diffusion.predict_velocity(small, noisy, torch.randn(2, 4, 16), torch.tensor([10, 900]))
    assert velocity.shape == noisy.shape
