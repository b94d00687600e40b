"""The method of docs/add_a_method.md, which lives in examples: what the others promise, it does by the same code."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from miniature import PROMPT, make_face, make_pipe, sample
from torch.testing import assert_close

from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import TrainingData

FOLDER = Path(__file__).parents[2] / "examples" / "third_method"
MAX_LINES = 150


@pytest.fixture(scope="module")
def module():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("face_tokens")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("face_tokens")


@pytest.fixture
def pipe():
    return make_pipe()


@pytest.fixture
def method(module, pipe):
    torch.manual_seed(1)
    method = module.FaceTokens(**module.FaceTokens.tiny_config(pipe.transformer.config, context_width=16))
    for parameter in method.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return method


def video(method, pipe, faces, **controls):
    with method.identity(faces, **controls):
        return sample(pipe, **method.prompt(PROMPT, max_sequence_length=12))


def test_method_and_training_take_less_than_150_lines():
    lines = [line for name in ("face_tokens", "train") for line in (FOLDER / f"{name}.py").read_text().splitlines()]
    assert len(lines) < MAX_LINES


def test_scale_zero_and_detached_are_the_stock_pipeline_bit_for_bit(method, pipe):
    stock = sample(pipe, prompt="a woman waves")
    method.attach(pipe)
    assert torch.equal(video(method, pipe, make_face(), scale=0), stock)
    assert not torch.equal(video(method, pipe, make_face()), stock)
    assert torch.equal(sample(pipe, prompt="a woman waves"), stock)
    method.detach()
    assert torch.equal(sample(pipe, prompt="a woman waves"), stock)


def test_another_person_a_second_picture_and_controls_change_the_video(method, pipe):
    method.attach(pipe)
    usual = video(method, pipe, make_face(0))
    others = [
        video(method, pipe, make_face(1)), video(method, pipe, [make_face(0), make_face(1)]),
        video(method, pipe, make_face(0), end=0.5), video(method, pipe, make_face(0), blocks=[0]),
    ]  # fmt: skip
    assert all(not torch.equal(usual, other) for other in others)


def test_it_comes_back_as_it_was_saved(module, method, pipe, tmp_path):
    from likeness.generation.loading.load import load_adapter

    expected = video(method.attach(pipe), pipe, make_face())
    method.save_pretrained(tmp_path)
    method.detach()
    found = load_adapter(tmp_path, module.FaceTokens).attach(pipe)
    assert_close(video(found, pipe, make_face()), expected)


def test_training_reaches_every_parameter_that_can_learn_at_first(module, method, pipe):
    method.attach(pipe).trainable_parameters()
    references = ShardedDataset({"embedding": torch.randn(6, 128)}, [{}] * 6)
    data = TrainingData(references={"train": references}, targets={}, validation_targets={})
    method_spec = module.FaceTokensTrainingSpec()
    method_spec.prepare(method, data, from_scratch=True)
    assert_close(method.mean, references["embedding"].mean(dim=0))
    embedding = method_spec.extra_conditioning(data, "train", torch.tensor([[0, 1], [2, 3]]))
    identity = method.encode_tensors(None, embedding)
    assert identity.face_tokens.shape == (2, 8, 16)
    noisy, text = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 12, 16)
    with method.conditioned(identity, active=torch.ones(2, dtype=torch.bool)):
        out = pipe.transformer(noisy, text, torch.tensor([5, 900]), return_dict=False)[0]
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


@pytest.mark.slow  # Draws people and trains three steps: a minute on a quiet core.
def test_the_worked_example_runs(monkeypatch, tmp_path):
    import runpy

    monkeypatch.chdir(tmp_path)
    few = [
        "faces.count=8",
        "faces.people=4",
        "faces.shard=8",
        "validation.count=8",
        "validation.people=4",
        "stages.0.steps=3",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *few, "stages.0.batch=4"])
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(str(FOLDER / "train.py"), run_name="__main__")
    assert (tmp_path / "runs" / "face_tokens.mp4").stat().st_size > 1000
