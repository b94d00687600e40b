import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.encoders.vit import CLIP_MEAN, CLIP_STD, ClipVisionEncoder, SmallVisionTransformer, resize


def test_small_features_are_the_outputs_of_the_last_two_blocks():
    torch.manual_seed(0)
    vit = SmallVisionTransformer(16, depth=3, num_heads=2, image_size_px=16, patch_size_px=8)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    dense = vit(pixels)
    assert dense.last.shape == dense.penultimate.shape == (2, 5, 16)
    assert_close(vit.layers[-1](dense.penultimate), dense.last)


def test_a_stem_halves_the_picture_once_for_each_width_or_is_refused():
    vit = SmallVisionTransformer(16, depth=2, num_heads=2, image_size_px=32, patch_size_px=8, stem_widths=(4, 8, 8))
    pixels = torch.rand(2, 3, 32, 32)
    assert vit(pixels).last.shape == (2, 1 + 4 * 4, 16)
    assert vit.patch_embed(pixels).shape == (2, 16, 4, 4)
    with pytest.raises(ConfigError, match="patches of 4 px, not of 8"):
        SmallVisionTransformer(16, depth=2, num_heads=2, image_size_px=32, patch_size_px=8, stem_widths=(4, 8))


def test_small_features_take_any_picture_size():
    vit = SmallVisionTransformer(16, depth=2, num_heads=2, image_size_px=16, patch_size_px=8)
    flat = torch.full((1, 3, 50, 50), 0.5)
    assert_close(vit(flat).last, vit(torch.full((1, 3, 16, 16), 0.5)).last)


def test_clip_features_match_transformers_hidden_states():
    torch.manual_seed(0)
    clip = ClipVisionEncoder(16, depth=3, num_heads=2, image_size_px=28, patch_size_px=14).eval()
    pixels = torch.rand(1, 3, 28, 28) * 2 - 1
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    hidden = clip.model(pixel_values=((pixels + 1) / 2 - mean) / std, output_hidden_states=True).hidden_states
    dense = clip(pixels)
    assert torch.equal(dense.last, hidden[-1])
    assert torch.equal(dense.penultimate, hidden[-2])
    assert dense.last.shape == (1, 5, 16)


def test_pictures_for_clip_shrink_as_its_own_preprocessing_shrinks_them():
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((96, 96), 3)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    expected = torch.from_numpy(np.asarray(picture.resize((28, 28), Image.Resampling.BICUBIC)).copy())
    ours = (resize(pixels, 28, mode="bicubic")[0].permute(1, 2, 0) + 1) * 127.5
    assert (ours - expected).abs().max() <= 1.01  # Pillow rounds twice.
    assert (resize(pixels, 28)[0].permute(1, 2, 0) * 127.5 + 127.5 - expected).abs().max() > 3
