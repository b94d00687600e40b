import numpy as np
import pytest
import torch

from likeness.errors import WeightsError
from likeness.identity.encoders.recognizer import Recognizer
from likeness.training.base.recognizer import (
    RecognizerStage,
    RecognizerStageSettings,
    compare_with_dlib,
    verification_auc,
)
from likeness.training.data.datasets import ShardedDataset


def test_a_copy_agrees_fully_and_noise_does_not():
    torch.manual_seed(0)
    people = [row // 3 for row in range(30)]
    wanted = torch.randn(10, 8).repeat_interleave(3, dim=0) + 0.1 * torch.randn(30, 8)
    same = compare_with_dlib(wanted, wanted, people)
    assert same["r2"] == pytest.approx(1)
    assert same["auc"] == same["dlib_auc"] == 1
    assert compare_with_dlib(torch.randn(30, 8), wanted, people)["auc"] < 0.75


def test_separation_is_the_share_of_pairs_in_the_right_order():
    distances, same = np.array([0.1, 0.4, 0.3, 0.9]), np.array([True, True, False, False])
    assert verification_auc(distances, same) == 0.75


def test_a_recognizer_survives_saving(tmp_path):
    torch.manual_seed(0)
    model = Recognizer(8, (8, 8, 8), 32)
    model.save(tmp_path)
    faces = torch.rand(2, 3, 32, 32)
    assert torch.allclose(Recognizer.load(tmp_path)(faces), model(faces), atol=1e-2)
    with pytest.raises(WeightsError, match=r"recognizer\.toml"):
        Recognizer.load(tmp_path / "nowhere")


def test_it_learns_and_reports(tmp_path):
    torch.manual_seed(0)
    points = torch.tensor([[44.0, 60], [56, 60], [72, 60], [84, 60], [64, 76]]).expand(8, 1, 5, 2)
    tensors = {"frames": torch.randint(256, (8, 1, 128, 128, 3), dtype=torch.uint8), "landmarks": points}
    shards = ShardedDataset({**tensors, "embedding": torch.randn(8, 8)}, [{"person": row // 2} for row in range(8)])
    settings = RecognizerStageSettings(name="s", steps=1, batch=4)
    stage = RecognizerStage(Recognizer(8, (8, 8, 8), 32), settings, {"faces": shards, "validation": shards}, 0)
    loss, figures = stage.loss(0)
    loss.backward()
    assert -1 <= figures["cosine"] <= 1
    assert stage.model.layers[0].weight.grad.any()
    assert set(stage.validate(tmp_path / "sheet.png")) >= {"r2", "auc", "dlib_auc"}
