"""A Magic Mirror of full size takes its frozen parts from the published file of PhotoMaker-V2."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_photomaker import LORA, SMALL, make_encoder, write_published
from torch.testing import assert_close

from likeness.errors import ConfigError, WeightsError
from likeness.identity.encoders.photomaker import PhotoMakerEncoder, fill_from_photomaker
from likeness.methods.magic_mirror import MagicMirror


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture
def published(encoder, tmp_path):
    return write_published(encoder, tmp_path)


def people():
    torch.manual_seed(1)
    return torch.rand(2, 3, 3, 28, 28) * 2 - 1, torch.randn(2, 3, SMALL.embedding_width)


def small_mirror(**changes):
    sizes = {
        "encoder_width": 16,
        "encoder_depth": 3,
        "encoder_heads": 2,
        "image_size_px": 28,
        "embedding_width": 8,
        "identity_width": 32,
        "identity_depth": 2,
        "face_width": 16,
        "face_depth": 1,
        "head_width": 16,
        "norm_width": 8,
        "norm_hidden_width": 8,
        "width": 16,
        "time_width": 8,
        "text_width": 16,
        "num_layers": 2,
    }
    return MagicMirror(**MagicMirror.cogvideox_5b_config(**(sizes | changes)))


def test_a_magic_mirror_takes_its_frozen_parts_from_the_file(encoder, published):
    mirror = small_mirror()
    trained = {name: tensor.clone() for name, tensor in mirror.fuse_module.state_dict().items()}
    fill_from_photomaker(mirror, published)
    for part in ("face_encoder", "identity_perceiver"):
        own, other = mirror.get_submodule(part).state_dict(), encoder.get_submodule(part).state_dict()
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)
    assert all(torch.equal(mirror.fuse_module.state_dict()[name], trained[name]) for name in trained)
    pixels, embedding = people()
    with torch.no_grad():
        assert_close(mirror.encode_tensors(pixels, embedding).id_tokens, encoder(pixels, embedding).id_tokens)


def test_half_precision_weights_take_the_adapters_dtype(encoder, tmp_path):
    half = {name: tensor.half() for name, tensor in encoder.published_state().items()}
    path = tmp_path / "half.bin"
    torch.save({"id_encoder": half, "lora_weights": LORA}, path)
    mirror = small_mirror()
    fill_from_photomaker(mirror, path)
    assert {parameter.dtype for parameter in mirror.parameters()} == {torch.float32}


def test_a_magic_mirror_of_other_sizes_is_refused(published):
    with pytest.raises(WeightsError, match=r"(?s)misshapen .*face_encoder.*cogvideox_5b_config"):
        fill_from_photomaker(small_mirror(encoder_width=8), published)


def test_an_adapter_without_memory_is_not_filled(published):
    with torch.device("meta"):
        mirror = small_mirror()
    with pytest.raises(ConfigError, match="meta device"):
        fill_from_photomaker(mirror, published)


def test_the_full_magic_mirror_fits_the_full_file():
    with torch.device("meta"):
        encoder = PhotoMakerEncoder()
        mirror = MagicMirror(**MagicMirror.cogvideox_5b_config())
    own = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    frozen = {
        name: tuple(tensor.shape)
        for name, tensor in mirror.state_dict().items()
        if name.startswith(("face_encoder.", "identity_perceiver."))
    }
    assert len(frozen) == 463 - 2 - 14  # All but the two unused projections and PhotoMaker's own fuse.
    assert frozen.items() <= own.items()


def whole(face, side=28):
    return replace(face, embedding=face.embedding[:8], whole_image=np.full((side, side, 3), 90, np.uint8))


def test_with_photomakers_weights_clip_reads_the_whole_image(face_of):
    """As PhotoMaker-V2 was trained; a head crop has another share of background."""
    mirror = small_mirror().eval()
    assert mirror.config["encoder_input"] == "whole_image"
    face = whole(face_of(0))
    pixels = torch.full((1, 1, 3, 28, 28), 90 / 127.5 - 1)
    with torch.no_grad():
        expected = mirror.encode_tensors(pixels, torch.from_numpy(face.embedding)[None, None])
        assert_close(mirror.encode([face]).id_tokens, expected.id_tokens)
        other = small_mirror(encoder_input="head_crop")
        other.load_state_dict(mirror.state_dict())
        assert not torch.allclose(other.eval().encode([face]).id_tokens, expected.id_tokens)


def test_a_character_without_whole_images_is_read_from_its_head_crops_with_a_warning(face_of, caplog):
    face = replace(whole(face_of(0)), whole_image=None)
    with caplog.at_level(logging.WARNING, logger="likeness"), torch.no_grad():
        small_mirror().eval().encode([face])
    assert "the whole picture is not at hand" in caplog.text


def test_a_method_for_head_crops_reads_nothing_else(face_of, caplog):
    small = small_mirror(encoder_input="head_crop").eval()
    one, other = whole(face_of(0)), replace(whole(face_of(0)), whole_image=None)
    with torch.no_grad():
        assert torch.equal(small.encode([one]).id_tokens, small.encode([other]).id_tokens)
    assert not caplog.records
