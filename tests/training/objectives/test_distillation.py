"""A distillation teacher predicts what Magic Mirror predicts in a pipeline of its own."""

import pytest
import torch
from torch.testing import assert_close

from likeness.errors import WeightsError
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.base.pipelines import read_base
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import TrainingData
from likeness.training.data.prompts import tokenize
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.train import read_teacher
from likeness.training.objectives import diffusion

SENTENCE = "a woman img nods in a park"


@pytest.fixture(scope="module")
def data():
    facts = [{"person": row, "prompt": SENTENCE, "group": "woman"} for row in range(3)]
    faces = ShardedDataset({"embedding": torch.randn(3, 128)}, facts)
    return TrainingData(
        references={"train": faces}, targets={"clips": ShardedDataset({}, facts)}, validation_targets={}
    )


def read(checkpoint, adapter, data, scale):
    settings = MethodStageSettings(name="s", steps=1, data="clips", teacher_scale=scale)
    return read_teacher(checkpoint, adapter, data, settings, torch.float32)


def predict(teacher, noisy, *, is_unconditional, active):
    rows = torch.arange(3)
    torch.manual_seed(0)
    pixels = torch.rand(3, 1, 3, 64, 64) * 2 - 1
    arguments = {"is_unconditional": torch.tensor(is_unconditional), "active": torch.tensor(active), "noisy": noisy}
    return pixels, teacher(rows, rows[:, None], pixels, **arguments, timesteps=torch.tensor([100, 500, 900]))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_teacher_is_magic_mirror_at_its_scale(checkpoint, data, scale):
    adapter = checkpoint / "magic_mirror"
    teacher = read(checkpoint, adapter, data, scale)
    noisy = torch.randn(3, 5, 16, 8, 8)
    is_dropped, active = [False, True, False], [True, True, False]
    pixels, said = predict(teacher, noisy, is_unconditional=is_dropped, active=active)
    pipe = read_base(checkpoint)
    method = MagicMirror.from_pretrained(adapter, torch_dtype=torch.float32).attach(pipe)
    length = pipe.transformer.config.max_text_seq_length
    tokens = method.tokenize([SENTENCE] * 3, pipe.tokenizer, num_references=1, max_length=length)
    ids, mask = tokens.ids.clone(), tokens.mask.clone()
    ids[1], mask[1] = tokenize(pipe.tokenizer, [""], length)[0], False
    with torch.no_grad():
        person = method.encode_tensors(pixels, data.references["train"]["embedding"][:, None])
        text = method.fuse(pipe.text_encoder(ids)[0], mask, person, scale=scale)
        with method.conditioned(person, active=torch.tensor(active), scale=scale):
            expected = diffusion.predict_velocity(pipe.transformer, noisy, text, torch.tensor([100, 500, 900]))
    assert_close(said, expected)


def test_scale_and_dropped_prompts_change_its_v(checkpoint, data):
    noisy = torch.randn(3, 5, 16, 8, 8)
    said = {
        (scale, is_dropped): predict(
            read(checkpoint, checkpoint / "magic_mirror", data, scale),
            noisy, is_unconditional=[is_dropped] * 3, active=[True] * 3,
        )[1]
        for scale in (0.5, 1.0)
        for is_dropped in (False, True)
    }  # fmt: skip
    assert (said[0.5, False] - said[1.0, False]).abs().max() > 1e-3
    assert (said[1.0, True] - said[1.0, False]).abs().max() > 1e-3


def test_a_missing_teacher_is_reported(checkpoint, data, tmp_path):
    with pytest.raises(WeightsError, match="Name a trained Magic Mirror"):
        read(checkpoint, tmp_path, data, 1.0)
