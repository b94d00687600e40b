"""The plot of a stage's metrics."""

import json

import torch
from torch import nn

from likeness.media import read_image
from likeness.training.engine.logging import draw_curves
from likeness.training.engine.loop import LoopSettings, train


class Flat:
    """Something that learns nothing, in one step."""

    def __init__(self):
        self.model = nn.Linear(1, 1)
        self.modules = {"flat": self.model}

    def loss(self, step):
        del step
        return self.model(torch.ones(1, 1)).sum(), {}

    def validate(self, path):
        del path
        return {"weight": 1.0}


def test_a_stage_ends_with_a_plot_of_every_metric(tmp_path):
    train(Flat(), LoopSettings(name="flat", steps=1), tmp_path, seed=0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    metrics = {name for line in lines for name in line} - {"step", "elapsed_s", "samples_per_s"}
    assert {"loss", "weight"} <= metrics
    picture = read_image(tmp_path / "curves.png")
    assert picture.shape == (300, 400 * len(metrics), 3)
    assert picture.std() > 5


def test_a_log_without_metrics_leaves_no_plot(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "elapsed_s": 0.1}\n')
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
