import pytest
import torch

from likeness.backbones import tiny
from likeness.errors import CheckpointError, WeightsError
from likeness.training.data import render_puppets
from likeness.training.engine import checkpoints


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.build_tokenizer(["a man nods"])


def encoder(tokenizer, seed, width=16):
    torch.manual_seed(seed)
    return tiny.build_text_encoder(tiny.TextSettings(width=width, num_heads=2, hidden_width=32), tokenizer)


def test_a_run_can_start_from_trained_weights(tokenizer, tmp_path):
    trained, fresh = encoder(tokenizer, 0), encoder(tokenizer, 1)
    trained.save_pretrained(tmp_path)
    checkpoints.start_from(fresh, tmp_path)
    for ours, theirs in zip(fresh.parameters(), trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_of_another_shape_are_refused(tokenizer, tmp_path):
    encoder(tokenizer, 0).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="another architecture"):
        checkpoints.start_from(encoder(tokenizer, 1, width=32), tmp_path)


def test_an_empty_folder_is_refused(tokenizer, tmp_path):
    with pytest.raises(WeightsError, match=r"config\.json"):
        checkpoints.start_from(encoder(tokenizer, 0), tmp_path)


def test_tokenizers_are_read_back(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert tiny.read_tokenizer(tmp_path)("a man nods").input_ids == tokenizer("a man nods").input_ids


def test_shards_of_another_renderer_are_not_reused(tmp_path, monkeypatch):
    settings = render_puppets.PuppetSettings(kind="images", count=1, people=1)
    before = render_puppets.folder(settings, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "paint.py").write_text("another way to paint")
    monkeypatch.setattr("likeness.puppets.__path__", [str(tmp_path / "elsewhere")])
    assert render_puppets.folder(settings, tmp_path) != before


def test_rendered_faces_of_another_face_engine_are_not_reused(tmp_path, monkeypatch):
    kinds = ("images", "faces")
    settings = [render_puppets.PuppetSettings(kind=kind, count=1, people=1) for kind in kinds]
    before = [render_puppets.folder(each, tmp_path) for each in settings]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "crop.py").write_text("another way to crop")
    monkeypatch.setattr("likeness.faces.__path__", [str(tmp_path / "elsewhere")])
    after = [render_puppets.folder(each, tmp_path) for each in settings]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]
