"""The released FantasyID by the high-level call: a small published folder, from pictures and vertices to a clip."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from likeness import Likeness
from likeness.backbones import tiny
from likeness.errors import ConfigError, WeightsError
from likeness.generation.loading.resolve_weights import is_published, resolve_published_files
from likeness.identity.face_shape.mean_head import PITCH_DEG, MeanHeadShape

sys.path.insert(0, str(Path(__file__).parents[2] / "methods"))
import small_released

WORDS = "a woman smiles in the park"
pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from likeness.methods.fantasy_id.published import build_empty

    folder = tmp_path_factory.mktemp("fantasyid")
    config = {"sample_width": 4, "sample_height": 4, "sample_frames": 9, "max_text_seq_length": 16}
    config["use_learned_positional_embeddings"] = True  # As the published base, CogVideoX-5B-I2V.
    place = small_released.write_config(folder, **config)
    torch.manual_seed(0)
    text = tiny.TextSettings(width=16, num_layers=1, num_heads=2, hidden_width=32)
    tokenizer = tiny.build_tokenizer([WORDS])
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=2, latent_channels=4))
    vae.save_pretrained(folder / "vae")
    tiny.build_text_encoder(text, tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    tiny.build_scheduler().save_pretrained(folder / "scheduler")
    save_file(
        small_released.draw_all(small_released.published_shapes(folder)), place / "diffusion_pytorch_model.safetensors"
    )
    small_released.write_eva(folder, build_empty(folder)[1])
    small_released.write_mesh(folder / "transform.pkl")
    return folder


@pytest.fixture(scope="module")
def likeness(folder):
    return Likeness.load("research", "fantasy_id", backbone=folder, device="cpu")


@pytest.fixture
def vertices(tmp_path):
    path = tmp_path / "me.npy"
    np.save(path, small_released.golden()["mesh.vertices.0"].numpy())
    return path


def read_small_heads(monkeypatch):
    """Let sources of shapes take the small mesh for a FLAME head."""
    from likeness.identity.face_shape import flame

    monkeypatch.setattr(flame, "NUM_VERTICES", 258)
    monkeypatch.setattr(flame, "check_head", lambda *_: None)


def make(likeness, face, vertices, **changes):
    choices = {"steps": 2, "frames": 9, "seed": 3, "shape": f"flame:{vertices}", **changes}
    return likeness.generate("a woman img smiles", [face], **choices)


def test_a_video_is_made_and_says_which_weights_made_it(monkeypatch, likeness, face_of, vertices):
    read_small_heads(monkeypatch)
    clip = make(likeness, face_of(0), vertices)
    assert clip.frames.shape == (9, 32, 32, 3)
    assert clip.settings["method"] == "FantasyID"
    assert "CogVideoX-5B-I2V" in clip.settings["licence"]
    assert clip.settings["identity_branch"] == "both"
    files = clip.settings["weights_sha256"]
    assert {"mesh/transform.pkl", "backbone/transformer/diffusion_pytorch_model.safetensors"} <= files.keys()
    other = make(likeness, face_of(1), vertices)
    assert not np.array_equal(clip.frames, other.frames)


def test_without_vertices_the_mean_head_is_posed_as_the_face(likeness, face_of):
    source = likeness.method.shape_source
    assert isinstance(source, MeanHeadShape)
    assert np.array_equal(source.template, small_released.golden()["mesh.vertices.0"].numpy())
    clip = make(likeness, face_of(0), None, shape=None)
    default = make(likeness, face_of(0), None, shape=f"mean_head:{PITCH_DEG}")
    assert np.array_equal(clip.frames, default.frames)
    assert default.settings["shape"] == f"mean_head:{PITCH_DEG}"
    assert not np.array_equal(clip.frames, make(likeness, face_of(0), None, shape="mean_head:40").frames)
    assert likeness.method.shape_source is source


def test_vertices_of_another_head_are_refused(monkeypatch, likeness, face_of, tmp_path):
    from likeness.identity.face_shape import flame

    np.save(tmp_path / "me.npy", np.random.default_rng(0).normal(size=(5023, 3)))
    monkeypatch.setattr(flame, "check_head", lambda *_: None)
    with pytest.raises(ConfigError, match="finite numbers were expected"):
        make(likeness, face_of(0), tmp_path / "me.npy")


def test_frames_without_learned_positions_are_refused_before_a_picture_is_read(likeness, tmp_path):
    with pytest.raises(ConfigError, match="learned positions for 9 frames only"):
        likeness.generate("a woman img smiles", [tmp_path / "absent.jpg"], steps=2, frames=17)
    story = tmp_path / "story.toml"
    story.write_text('frames = 9\n[[shots]]\nprompt = "a woman img nods"\n[[shots]]\nprompt = "a woman"\nframes = 17\n')
    with pytest.raises(ConfigError, match="Shot 2: 17 frames"):
        likeness.story(story, tmp_path / "out", [tmp_path / "absent.jpg"])
    assert not (tmp_path / "out").exists()


def test_the_pipeline_begins_with_the_first_reference(likeness):
    from likeness.methods.fantasy_id.released import ReleasedTokens

    picture = torch.zeros(1, 512, 512, 3, dtype=torch.uint8)
    identity = ReleasedTokens(face_tokens=torch.zeros(1, 9, 128), picture=picture)
    (image,) = likeness.method.pipeline_arguments(ReleasedTokens.stack([identity]))["image"]
    assert image.size == (512, 512)


def test_what_is_missing_is_listed_with_its_commands(monkeypatch, tmp_path, folder):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        Likeness.load("research", "fantasy_id")
    message = str(error.value)
    assert "`likeness models pull fantasyid --preset research`" in message
    assert "`likeness models pull fantasyid-mesh --preset research`" in message
    assert "`likeness models pull eva02-clip-l-336 --preset open`" in message
    assert message.count("is missing") == 7
    assert resolve_published_files(folder)["backbone"] == folder


def test_a_published_folder_is_known_by_its_config(folder, tmp_path):
    assert is_published(folder)
    assert not is_published(tmp_path)


def test_the_doctor_names_the_command_for_the_released_weights(monkeypatch, tmp_path):
    from likeness.app import doctor
    from likeness.generation.loading.presets import find_preset

    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    machine = {"gpus": [{"memory_bytes": 80e9}]}
    row = doctor.describe_run(find_preset("research"), "fantasy_id", machine, [])
    assert "`likeness models pull fantasyid --preset research`" in row["reason"]
