"""The released profile against the published code's own numbers, and its checkpoints."""

import copy
import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import small_released
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from likeness.errors import ConfigError, WeightsError
from likeness.identity.mesh.halfedges import openmesh_rings
from likeness.identity.mesh.published_mesh import read_mesh
from likeness.identity.tokens import PersonTokens
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.fantasy_id.published import build_empty, load_published, published_names, save_published
from likeness.methods.fantasy_id.settings import RELEASED

CLOSE = {"rtol": 0, "atol": 1e-5}
STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published folder with drawn weights, in one safetensors file."""
    folder = tmp_path_factory.mktemp("published")
    place = small_released.write_config(folder)
    save_file(small_released.draw_all(small_released.published_shapes(folder)), place / f"{STEM}.safetensors")
    small_released.write_eva(folder, build_empty(folder)[1])
    small_released.write_mesh(folder / "transform.pkl")
    return folder


@pytest.fixture(scope="module")
def mesh(folder):
    return read_mesh(folder / "transform.pkl")


@pytest.fixture(scope="module")
def loaded(folder, mesh):
    return load_published(folder, mesh)


@pytest.fixture(scope="module")
def golden():
    return small_released.golden()


@pytest.fixture(scope="module")
def vertices(golden):
    return golden["mesh.vertices.0"][None] + 0.01 * small_released.draw("input.vertices", (1, 258, 3))


def face_features():
    """Of the five depths that the published code reads, the one that it lets through."""
    return small_released.draw("input.features.4", (1, 65, 32))


def transformer_inputs():
    return {
        "hidden_states": small_released.draw("input.latents", (2, 3, 8, 6, 8)),
        "encoder_hidden_states": small_released.draw("input.text", (2, 12, 16)),
        "timestep": torch.tensor([500, 500]),
        "image_rotary_emb": small_released.ROPE,
    }


@torch.no_grad()
def test_eva_clip_matches_the_published_code(loaded, golden):
    # In float64: states of up to 25 differ by more than 1e-5 between processors in float32.
    encoder = copy.deepcopy(loaded[1].descriptor.face_encoder).double()
    mean, std = (
        torch.tensor(each)[:, None, None]
        for each in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    pixels = (small_released.draw("input.pixels", (1, 3, 32, 32)) * std + mean) * 2 - 1
    assert_close(encoder(pixels.double()), golden["eva"].double(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_abstractor_matches_the_published_code(loaded, golden):
    assert_close(loaded[1].descriptor.abstractor(face_features()), golden["face_abstractor"], **CLOSE)


@torch.no_grad()
def test_the_vertex_branch_matches_the_published_code(loaded, golden, vertices):
    descriptor = loaded[1].descriptor
    shape = descriptor.vertex_encoder(vertices, golden["face_abstractor"])
    assert_close(shape, golden["vertex_spiral_net"], **CLOSE)
    assert_close(descriptor.reducer(golden["vertex_spiral_net"]), golden["vertex_reducer"], **CLOSE)


@torch.no_grad()
def test_an_injection_matches_the_published_code(loaded, golden):
    layer = loaded[1].layers["2"]
    context = torch.cat([golden["face_abstractor"], golden["vertex_reducer"]], dim=1)
    keys, values = layer.keys_and_values(context)
    added = layer(
        small_released.draw("input.hidden", (2, 36, 192)), *(x.expand(2, -1, -1, -1) for x in (keys, values)), None
    )
    assert_close(added, golden["layer_attention"], **CLOSE)


@torch.no_grad()
def test_the_adapted_transformer_matches_the_published_code(loaded, golden, vertices):
    transformer, method = loaded
    tokens = method.descriptor.describe(face_features(), vertices)
    method.attach(transformer)
    try:
        with method.conditioned(
            PersonTokens(face_tokens=tokens)
        ):  # a batch of two: both rows, as in the published code
            both = transformer(**transformer_inputs()).sample
        with method.conditioned(PersonTokens(face_tokens=tokens), scale=0):
            stock = transformer(**transformer_inputs()).sample
    finally:
        method.detach()
    assert_close(both, golden["transformer"], **CLOSE)
    assert (stock - both).abs().max() > 0.1


def test_of_ten_abstractors_the_last_speaks_with_the_positions_of_the_ninth(loaded):
    abstractor = loaded[1].descriptor.abstractor
    abstractor.requires_grad_(True)
    abstractor(face_features()).square().sum().backward()
    alive = {name for name, parameter in abstractor.named_parameters() if parameter.grad is not None}
    abstractor.requires_grad_(False)
    abstractor.zero_grad()
    expected = ("layers.9.", "mapping_4.", "layers.8.0.pos_emb", "proj_out")
    assert alive == {name for name, _ in abstractor.named_parameters() if name.startswith(expected)}


def test_spirals_are_those_that_openmesh_walks(mesh, golden):
    for level in range(2):
        assert np.array_equal(mesh.spirals[level], golden[f"spirals.{level}"].numpy())


def test_a_triangle_that_would_make_the_surface_branch_is_left_out():
    triangles = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    assert openmesh_rings(5, triangles)[4] == []
    assert sorted(openmesh_rings(5, triangles)[0]) == [1, 2, 3]


def test_a_mesh_file_that_wants_to_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, ("true",)

    path = tmp_path / "transform.pkl"
    path.write_bytes(pickle.dumps({"vertices": Attack()}))
    with pytest.raises(WeightsError, match="which is no array"):
        read_mesh(path)


def full_size_shapes(tmp_path, interval):
    published = {
        "num_attention_heads": 48, "attention_head_dim": 64, "in_channels": 32, "out_channels": 16, "num_layers": 42,
        "time_embed_dim": 512, "text_embed_dim": 4096, "sample_width": 90, "sample_height": 60, "sample_frames": 49,
        "max_text_seq_length": 226, "cross_attn_interval": interval, "face_modules": {},
    }  # fmt: skip
    small_released.write_config(tmp_path, **published)
    return small_released.published_shapes(tmp_path)


@pytest.mark.parametrize(("interval", "layers"), [(1, 42), (2, 21)])
def test_names_and_sizes_are_the_published_ones(tmp_path, interval, layers):
    shapes = full_size_shapes(tmp_path, interval)
    added = {
        name: shape
        for name, shape in shapes.items()
        if name.startswith(("face_abstractor.", "vertex_spiral_net.", "vertex_reducer.", "layer_attention."))
    }
    count = Counter(name.split(".")[0] for name in added)
    assert count == {
        "face_abstractor": 962, "vertex_spiral_net": 91, "vertex_reducer": 40, "layer_attention": 7 * layers
    }  # fmt: skip
    numbers = Counter()
    for name, shape in added.items():
        numbers[".".join(name.split(".")[: 1 + name.startswith("layer_attention")])] += int(np.prod(shape))
    assert numbers["layer_attention.0"] == 20_981_760
    listed = json.loads((Path(__file__).parents[1] / "golden" / "fantasy_id_released_tensors.json").read_text())
    assert len(listed) == 1100
    own = "layer_attention.{i}."
    expected = {name: tuple(shape) for name, shape in listed.items() if not name.startswith(own)}
    for number in range(layers):
        expected |= {name.format(i=number): tuple(shape) for name, shape in listed.items() if name.startswith(own)}
    assert added == expected
    rounded = {name: round(number / 1e6, 3) for name, number in numbers.items()}
    assert rounded["face_abstractor"] == 144.213
    assert rounded["vertex_spiral_net"] == 9.654
    assert rounded["vertex_reducer"] == 34.106
    assert shapes["patch_embed.proj.weight"] == (3072, 32, 2, 2)
    assert shapes["vertex_spiral_net.vtx_query"] == (1, 314, 128)
    assert shapes["face_abstractor.layers.9.0.pos_emb"] == (1, 576, 1024)


def test_a_person_is_115_tokens_at_published_size():
    with torch.device("meta"):
        method = FantasyID(width=3072, num_layers=1, **RELEASED)
        features, vertices = torch.empty(1, 577, 1024), torch.empty(1, 5023, 3)
        assert method.descriptor.describe(features, vertices).shape == (1, 115, 2048)


@pytest.mark.parametrize("layout", ["single", "shards", "bin", "bin shards", "averaged"])
def test_every_published_layout_loads_and_saves_back_identical(tmp_path, folder, mesh, layout):
    state = load_file(folder / "transformer" / f"{STEM}.safetensors")
    place = small_released.write_config(tmp_path)
    write_layout(place, state, layout)
    transformer, method = load_published(tmp_path, mesh, eva=folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt")
    back = save_published(tmp_path / "back", transformer, method)
    again = load_file(back / f"{STEM}.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    written = json.loads((back / "config.json").read_text())
    assert written["cross_attn_interval"] == 2
    assert written["face_modules"] == small_released.CONFIG["face_modules"]


def write_layout(place, state, layout):
    names = sorted(state)
    halves = [{name: state[name] for name in names[::2]}, {name: state[name] for name in names[1::2]}]
    if layout == "single":
        save_file(state, place / f"{STEM}.safetensors")
    elif layout == "shards":
        for number, half in enumerate(halves, start=1):
            save_file(half, place / f"{STEM}-0000{number}-of-00002.safetensors")
    elif layout == "bin":
        torch.save(state, place / f"{STEM}.bin")
    elif layout == "bin shards":
        for number, half in enumerate(halves, start=1):
            torch.save(half, place / f"{STEM}-0000{number}-of-00002.bin")
    else:
        averaged = small_released.write_config(place.parent, "transformer_ema")
        save_file(state, averaged / f"{STEM}.safetensors")
        save_file({name: x + 1 for name, x in state.items()}, place / f"{STEM}.safetensors")


def test_shards_are_written_with_an_index_and_read_back(tmp_path, loaded, mesh, folder):
    place = save_published(tmp_path, *loaded, max_shard_bytes=1_000_000)
    assert len(list(place.glob("*.safetensors"))) > 1
    eva = folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt"
    _, method = load_published(tmp_path, mesh, eva=eva)
    again = method.state_dict()
    assert all(torch.equal(x, again[name]) for name, x in loaded[1].state_dict().items())
    next(place.glob("*-00001-*.safetensors")).unlink()
    with pytest.raises(WeightsError, match="is missing"):
        load_published(tmp_path, mesh, eva=eva)


def test_half_precision_leaves_the_vertex_branch_whole(folder, mesh):
    transformer, method = load_published(folder, mesh, dtype=torch.bfloat16)
    method.attach(transformer)
    dtypes = {name: x.dtype for name, x in method.named_parameters()}
    assert {dtypes[name] for name in dtypes if ".vertex_encoder." in name} == {torch.float32}
    assert {dtypes[name] for name in dtypes if ".vertex_encoder." not in name} == {torch.bfloat16}


def test_a_wrong_interval_is_named_with_every_tensor_that_does_not_fit(tmp_path, folder, mesh):
    place = small_released.write_config(tmp_path, cross_attn_interval=1)
    os.link(folder / "transformer" / f"{STEM}.safetensors", place / f"{STEM}.safetensors")
    with pytest.raises(WeightsError) as error:
        load_published(tmp_path, mesh)
    assert "missing (14): layer_attention.2.norm1.bias" in str(error.value)
    assert "`cross_attn_interval` is 1" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_train_face": False}, "`is_train_face` is False"),
        ({"is_kps": True}, "`is_kps` is true"),
        ({"cross_attn_interval": 3}, "does not divide the 4 blocks"),
    ],
)
def test_settings_that_are_not_the_published_method_are_refused(tmp_path, changes, message):
    small_released.write_config(tmp_path, **changes)
    with pytest.raises(WeightsError, match=message):
        build_empty(tmp_path)


def test_without_its_parts_it_says_what_to_bring(tmp_path, folder, mesh):
    with pytest.raises(WeightsError, match=r"neither transformer_ema/config\.json nor"):
        load_published(tmp_path, mesh)
    place = small_released.write_config(tmp_path)
    with pytest.raises(WeightsError, match="holds no diffusion_pytorch_model"):
        load_published(tmp_path, mesh)
    os.link(folder / "transformer" / f"{STEM}.safetensors", place / f"{STEM}.safetensors")
    with pytest.raises(WeightsError, match="likeness models pull eva02-clip-l-336"):
        load_published(tmp_path, mesh)
    with pytest.raises(WeightsError, match="likeness models pull fantasyid-mesh"):
        read_mesh(tmp_path / "transform.pkl")


def test_it_saves_and_loads_in_our_own_format_with_its_mesh(tmp_path, loaded):
    method = loaded[1]
    method.save_pretrained(tmp_path)
    again = FantasyID.from_pretrained(tmp_path)
    tensors = again.state_dict()
    assert all(torch.equal(x, tensors[name]) for name, x in method.state_dict().items())
    assert again.descriptor.vertex_encoder.has_topology


def test_profiles_and_encoders_belong_together():
    with pytest.raises(ConfigError, match="'released' with 'eva'"):
        FantasyID(width=32, num_layers=1, profile="released")
    with pytest.raises(ConfigError, match="profile"):
        FantasyID(width=32, num_layers=1, encoder="eva")


def test_every_tensor_but_the_encoder_and_the_mesh_has_a_published_name(loaded):
    own = {name for name in loaded[1].state_dict() if ".face_encoder." not in name}
    unnamed = {name.split(".")[-1].rstrip("_01") for name in own - published_names(loaded[1]).keys()}
    assert unnamed == {"template", "spirals", "kept", "up_indices", "up_weights"}


def test_settings_and_tensors_that_nobody_reads_are_listed_and_ignored(tmp_path, folder, mesh, caplog):
    place = tmp_path / "transformer"
    place.mkdir()
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "new_setting": 1}))
    state = load_file(folder / "transformer" / f"{STEM}.safetensors")
    save_file({**state, "face_stranger.weight": torch.ones(2)}, place / f"{STEM}.safetensors")
    transformer, _ = load_published(tmp_path, mesh, eva=folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt")
    assert "new_setting" in caplog.text
    assert "face_stranger.weight" in caplog.text
    assert "face_stranger.weight" not in transformer.state_dict()


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_of_nan_are_refused_in_both_formats(tmp_path, folder, mesh, suffix):
    place = tmp_path / "transformer"
    place.mkdir()
    (place / "config.json").write_text((folder / "transformer" / "config.json").read_text())
    state = load_file(folder / "transformer" / f"{STEM}.safetensors")
    state["proj_out.weight"][0] = float("nan")
    if suffix == "bin":
        torch.save(state, place / f"{STEM}.bin")
    else:
        save_file(state, place / f"{STEM}.safetensors")
    with pytest.raises(WeightsError, match=r"not finite .* proj_out\.weight"):
        load_published(tmp_path, mesh, eva=folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt")
