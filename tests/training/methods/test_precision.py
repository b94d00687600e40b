"""Frozen base in bfloat16, trained adapter in float32."""

import pytest
import torch
from small_methods import SPECS, build, make_stage
from torch.testing import assert_close

from likeness.identity.encoders.recognizer import Recognizer
from likeness.training.engine.optimizers import Optimizers, OptimizerSettings


@pytest.fixture(scope="module", params=SPECS)
def parts(request, topology_of, frozen_pipe):
    pipe, method, method_spec = build(request.param, frozen_pipe, topology_of)
    for parameter in pipe.transformer.parameters():
        parameter.data = parameter.data.bfloat16()
    method.attach(pipe, dtype=torch.float32)
    method.trainable_parameters()
    return pipe, method, method_spec, Recognizer(128, (8, 8, 8), 32).requires_grad_(False)


def losses(parts, **changes):
    torch.manual_seed(0)
    # `fsdp2` in one process: autocast, and nothing is sharded.
    stage = make_stage(
        parts, data="clips", dtype="bfloat16", identity_samples=0, identity_drop=0.0, parallel="fsdp2", **changes
    )
    assert stage.uses_autocast
    loss, _ = stage.loss(0)
    loss.backward()
    gradients = [p.grad.clone() for p in parts[1].parameters() if p.grad is not None]
    parts[1].zero_grad()
    return float(loss.detach()), gradients


def test_checkpointing_changes_neither_loss_nor_gradients_with_bfloat16(parts):
    kept, gradients = losses(parts)
    recomputed, again = losses(parts, gradient_checkpointing=True)
    assert kept == recomputed
    assert any(bool(gradient.any()) for gradient in gradients)
    for one, other in zip(gradients, again, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_float32_adapter_over_a_bfloat16_base_moves_with_small_steps(parts):
    """At a rate of 1e-5, 20 steps of AdamW move nearly every number of a float32 matrix (3 % of a bfloat16 one)."""
    _, method, *_ = parts
    name, matrix = next((n, p) for n, p in method.named_parameters() if p.requires_grad and p.ndim == 2)
    before = matrix.detach().clone()
    optimizers = Optimizers({"method": method}, OptimizerSettings(learning_rate=1e-5, warmup_steps=0))
    for _ in range(20):
        for parameter in optimizers.parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizers.step(step=0, progress=0.0)
    assert matrix.dtype == torch.float32, name
    assert float((matrix != before).float().mean()) > 0.99
