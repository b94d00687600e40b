"""The published encoder: its layout at full size without memory, everything else at a small size."""

import math

import pytest
import torch
from safetensors.torch import save_file
from small_photomaker import LORA, SMALL, make_encoder, write_published
from torch.testing import assert_close

from likeness.errors import ConfigError, WeightsError
from likeness.identity.encoders.photomaker import PhotoMakerEncoder, PhotoMakerFuse, read_published


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture
def published(encoder, tmp_path):
    return write_published(encoder, tmp_path)


def people(batch=2, references=3):
    torch.manual_seed(1)
    pixels = torch.rand(batch, references, 3, 28, 28) * 2 - 1
    return pixels, torch.randn(batch, references, SMALL.embedding_width)


def test_full_size_has_463_tensors_and_543395840_parameters():
    with torch.device("meta"):
        shapes = PhotoMakerEncoder().published_shapes()
    assert len(shapes) == 463
    assert sum(math.prod(shape) for shape in shapes.values()) == 543_395_840
    parts = {
        "vision_model.": 303_179_776,
        "visual_projection.": 786_432,
        "visual_projection_2.": 1_310_720,
        "qformer_perceiver.": 217_122_816,
        "fuse_module.": 20_996_096,
    }
    for prefix, count in parts.items():
        assert sum(math.prod(s) for name, s in shapes.items() if name.startswith(prefix)) == count


def test_full_size_has_the_published_names_and_shapes():
    with torch.device("meta"):
        shapes = PhotoMakerEncoder().published_shapes()
    expected = {
        "visual_projection.weight": (768, 1024),
        "visual_projection_2.weight": (1280, 1024),
    }
    expected |= vision_shapes("vision_model", width=1024, depth=24, tokens=257)
    expected |= perceiver_shapes("qformer_perceiver", embedding=512, features=1024, width=2048, depth=4)
    for part, width in (("mlp1", 4096), ("mlp2", 2048)):
        place = f"fuse_module.{part}"
        expected |= norm(f"{place}.layernorm", width)
        expected |= linear(f"{place}.fc1", width, 2048) | linear(f"{place}.fc2", 2048, 2048)
    expected |= norm("fuse_module.layer_norm", 2048)
    assert shapes == expected


def linear(name, ins, outs):
    return {f"{name}.weight": (outs, ins), f"{name}.bias": (outs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision_shapes(place, *, width, depth, tokens):
    shapes = {
        f"{place}.embeddings.class_embedding": (width,),
        f"{place}.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{place}.embeddings.position_embedding.weight": (tokens, width),
    }
    shapes |= norm(f"{place}.pre_layrnorm", width) | norm(f"{place}.post_layernorm", width)
    for number in range(depth):
        layer = f"{place}.encoder.layers.{number}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{projection}", width, width)
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        shapes |= linear(f"{layer}.mlp.fc1", width, 4 * width) | linear(f"{layer}.mlp.fc2", 4 * width, width)
    return shapes


def perceiver_shapes(place, *, embedding, features, width, depth):
    shapes = linear(f"{place}.token_proj.0", embedding, 4 * embedding)
    shapes |= linear(f"{place}.token_proj.2", 4 * embedding, 2 * width) | norm(f"{place}.token_norm", width)
    resampler = f"{place}.perceiver_resampler"
    shapes |= linear(f"{resampler}.proj_in", features, width) | linear(f"{resampler}.proj_out", width, width)
    shapes |= norm(f"{resampler}.norm_out", width)
    for number in range(depth):
        layer = f"{resampler}.layers.{number}"
        shapes |= norm(f"{layer}.0.norm1", width) | norm(f"{layer}.0.norm2", width)
        shapes |= {f"{layer}.0.to_q.weight": (width, width), f"{layer}.0.to_kv.weight": (2 * width, width)}
        shapes |= {f"{layer}.0.to_out.weight": (width, width)} | norm(f"{layer}.1.0", width)
        shapes |= {f"{layer}.1.1.weight": (4 * width, width), f"{layer}.1.3.weight": (width, 4 * width)}
    return shapes


def test_a_published_file_makes_a_round_trip(encoder, published):
    loaded = PhotoMakerEncoder.from_published(published, SMALL)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    with torch.no_grad():
        assert torch.equal(loaded(*people()).id_tokens, encoder(*people()).id_tokens)


def test_safetensors_serve_as_well(encoder, published, tmp_path):
    path = tmp_path / "photomaker-v2.safetensors"
    parts = {"id_encoder": encoder.published_state(), "lora_weights": LORA}
    tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
    save_file(tensors, path)
    one, other = read_published(path), read_published(published)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_all_that_differs_is_in_one_error(encoder, tmp_path):
    state = encoder.published_state()
    del state["visual_projection.weight"]
    state["stranger"] = torch.zeros(1)
    state["fuse_module.layer_norm.bias"] = torch.zeros(7)
    path = tmp_path / "wrong.bin"
    torch.save({"id_encoder": state, "lora_weights": LORA}, path)
    with pytest.raises(WeightsError) as caught:
        PhotoMakerEncoder.from_published(path, SMALL)
    message = str(caught.value)
    assert "missing (1): visual_projection.weight" in message
    assert "extra (1): stranger" in message
    assert "misshapen (1): fuse_module.layer_norm.bias is 7 instead of 32" in message


class Dangerous:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("content", [Dangerous(), {"id_encoder": {}}, [1], {"id_encoder": 3, "lora_weights": {}}])
def test_other_pickles_are_refused_and_run_nothing(tmp_path, capsys, content):
    path = tmp_path / "other.bin"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="likeness models pull photomaker-v2"):
        read_published(path)
    assert not capsys.readouterr().out


def test_a_missing_or_damaged_file_names_what_brings_it(tmp_path):
    with pytest.raises(WeightsError, match="likeness models pull photomaker-v2"):
        read_published(tmp_path / "photomaker-v2.bin")
    (tmp_path / "cut.bin").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_published(tmp_path / "cut.bin")


def test_one_pass_serves_both_branches(encoder):
    passes = []
    hook = encoder.face_encoder.model.register_forward_hook(lambda *_: passes.append(1))
    pixels, embedding = people()
    with torch.no_grad():
        tokens = encoder(pixels, embedding)
        dense = encoder.face_encoder(pixels.flatten(0, 1))
    hook.remove()
    assert passes == [1, 1]  # One of the encoder, one of this test.
    assert torch.equal(tokens.dense.last, dense.last)
    assert torch.equal(tokens.dense.penultimate, dense.penultimate)


def test_every_reference_gives_two_tokens_and_nothing_is_averaged(encoder):
    pixels, embedding = people()
    with torch.no_grad():
        tokens = encoder(pixels, embedding).id_tokens
        assert tokens.shape == (2, 6, 32)
        for row in range(2):
            for number in range(3):
                one = slice(number, number + 1)
                alone = encoder(pixels[row, None, one], embedding[row, None, one]).id_tokens[0]
                assert_close(tokens[row, 2 * number : 2 * number + 2], alone)


def test_the_embedding_enters_raw(encoder):
    pixels, embedding = people()
    with torch.no_grad():
        assert not torch.allclose(encoder(pixels, 2 * embedding).id_tokens, encoder(pixels, embedding).id_tokens)


def test_embeddings_of_another_engine_are_refused(encoder):
    pixels, _ = people()
    with pytest.raises(ConfigError, match="engine `research`"):
        encoder(pixels, torch.randn(2, 3, 128))


def test_perceiver_matches_its_equations_written_as_loops(encoder):
    """Section by section as PhotoMaker-V2 computes it: both scaled by 128^-1/4, keys of features and latents."""
    perceiver = encoder.identity_perceiver.double()
    torch.manual_seed(2)
    embedding, features = torch.randn(1, 8, dtype=torch.double), torch.randn(1, 5, 16, dtype=torch.double)
    query = perceiver.token_norm(perceiver.token_proj(embedding).reshape(1, 2, 32))
    resampler, latents = perceiver.perceiver_resampler, query
    x = resampler.proj_in(features)
    for attention, feed_forward in resampler.layers:
        a, b = attention.norm1(x), attention.norm2(latents)
        keys, values = attention.to_kv(torch.cat([a, b], dim=1)).chunk(2, dim=-1)
        queries, heads = attention.to_q(b), []
        for head in range(2):
            part = slice(16 * head, 16 * head + 16)
            scores = (queries[..., part] * 16**-0.25) @ (keys[..., part] * 16**-0.25).mT
            heads.append(scores.softmax(dim=-1) @ values[..., part])
        latents = attention.to_out(torch.cat(heads, dim=-1)) + latents
        latents = feed_forward(latents) + latents
    expected = query + resampler.norm_out(resampler.proj_out(latents))
    assert_close(perceiver(embedding, features), expected)
    encoder.identity_perceiver.float()


def test_fuse_works_per_sample_and_leaves_its_input_alone():
    torch.manual_seed(3)
    fuse = PhotoMakerFuse(8)
    text, identity = torch.randn(2, 7, 8), torch.randn(2, 2, 8)
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[0, 1:3] = mask[1, 4:6] = True
    before = text.clone()
    fused = fuse(text, mask, identity)
    assert torch.equal(text, before)
    assert torch.equal(fused[~mask], text[~mask])
    words = text[1, 4:6]
    hidden = fuse.mlp1(torch.cat([words, identity[1]], dim=-1)) + words
    assert_close(fused[1, 4:6], fuse.layer_norm(fuse.mlp2(hidden)))
    assert_close(fused[:1], fuse(text[:1], mask[:1], identity[:1]))
