"""Trains a small method over random data in the processes of torchrun; the argument is JSON (`test_parallel.py`)."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from small_methods import PROMPT, SPECS, make_stage

from likeness.backbones import tiny
from likeness.identity.encoders.recognizer import Recognizer
from likeness.identity.mesh.spirals import MeshTopology
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.loop import InterruptedRunError, train
from likeness.training.engine.optimizers import OptimizerSettings
from likeness.training.engine.parallel import full_tensor


def build_parts(name):
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer([PROMPT])
    text = tiny.TextSettings(width=32, num_layers=1, num_heads=2, hidden_width=32)
    transformer = tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=16, num_frames=17)
    vae = tiny.VaeSettings(widths=(8, 8, 8, 8))
    pipe = tiny.build_pipeline(
        tiny.build_vae(vae),
        tiny.build_text_encoder(text, tokenizer),
        tokenizer,
        tiny.build_transformer(transformer, text),
    )
    for part in (pipe.vae, pipe.text_encoder, pipe.transformer):
        part.requires_grad_(False).eval()
    method_spec, sizes = SPECS[name]
    method = method_spec.build(pipe.transformer.config, sizes)
    if name == "fantasy_id":
        method.set_topology(random_mesh(30, 8))
    # Layers that start at zero would hide errors.
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return pipe, method, method_spec, Recognizer(widths=(8, 8, 8, 8)).requires_grad_(False).eval()


def random_mesh(fine, coarse):
    random = np.random.default_rng(0)
    mean = random.normal(size=(fine, 3)).astype(np.float32)
    spirals = (random.integers(0, fine, (fine, 9)), random.integers(0, coarse, (coarse, 9)))
    return MeshTopology(
        vertices=(mean, mean[:coarse]), triangles=(), spirals=spirals, kept=(np.arange(coarse),), up_indices=(),
        up_weights=(),
    )  # fmt: skip


def main():
    wanted = json.loads(sys.argv[1])
    folder = Path(wanted["folder"])
    with distributed.launch(1):
        pipe, method, method_spec, recognizer = build_parts(wanted["method"])
        method.attach(pipe, dtype=torch.float32)
        method.trainable_parameters()
        stage = make_stage(
            (pipe, method, method_spec, recognizer), data="clips", dtype="float32", steps=wanted["steps"], batch=4,
            accumulation=wanted["accumulation"], parallel=wanted["parallel"], gradient_checkpointing=True,
            identity_samples=0, identity_drop=0.3, text_drop=0.3, checkpoint_steps=2,
            optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0, schedule="constant"),
        )  # fmt: skip
        losses = []
        inner = stage.loss

        def loss(step):
            died = folder / "was_killed"
            if step == wanted.get("kill_at") and distributed.rank() == 1 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            value, metrics = inner(step)
            mean = value.detach().clone()
            if distributed.world_size() > 1:
                torch.distributed.all_reduce(mean)
            losses.append((step, float(mean) / distributed.world_size()))
            return value, metrics

        stage.loss = loss
        stage.validate = lambda path: {}  # noqa: ARG005
        stage.validation_parts = None
        with contextlib.suppress(InterruptedRunError):
            train(stage, stage.settings, folder, seed=5, stop_after_steps=wanted["stop_after"])
        tensors = {name: full_tensor(value).detach().clone() for name, value in method.named_parameters()}
        if distributed.rank() == 0:
            save_file(tensors, folder / "weights.safetensors")
            lines = [json.dumps({"step": step, "loss": value}) for step, value in losses]
            (folder / "losses.jsonl").write_text("\n".join(lines))
            assert checkpoints.list_checkpoints(folder / "checkpoints")


if __name__ == "__main__":
    main()
