"""Weights of NaN, and numbers that grow beyond their dtype, end in an error and in no black video."""

import math

import numpy as np
import pytest
import torch

from likeness.errors import SamplingError
from likeness.generation import Likeness
from likeness.generation.sampling.sample import to_bytes

PROMPT = "a woman img in a red sweater nods"
FEW = {"steps": 4, "frames": 1}


@pytest.fixture
def own(checkpoint):
    """One whose weights a test may spoil."""
    return Likeness.load(backbone=checkpoint)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_adapter_that_is_not_finite_is_reported_in_the_first_step(own, face, value):
    for parameter in own.method.layers.parameters():
        torch.nn.init.constant_(parameter, value)
    done = []
    with pytest.raises(SamplingError, match="not finite in step 1 of 4"):
        own.generate(PROMPT, face, on_step=lambda step, _: done.append(step), **FEW)
    assert done == []


def test_latents_that_become_nan_are_reported_in_their_step_and_nothing_is_left(own, face):
    stock, calls = own.pipeline.scheduler.step, []

    def spoil(*arguments, **named):
        calls.append(None)
        result = stock(*arguments, **named)
        return (result[0] * math.nan, *result[1:]) if len(calls) == 3 else result

    own.pipeline.scheduler.step = spoil
    with pytest.raises(SamplingError, match="step 3 of 4"):
        own.generate(PROMPT, face, **FEW)
    own.pipeline.scheduler.step = stock
    assert own.generate(PROMPT, face, **FEW).frames.any()


def test_a_decoder_that_is_not_finite_is_reported(own, face):
    for parameter in own.pipeline.vae.decoder.conv_out.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    with pytest.raises(SamplingError, match="decoding"):
        own.generate(PROMPT, face, **FEW)


def test_pixels_that_are_no_numbers_do_not_become_black():
    with pytest.raises(SamplingError):
        to_bytes(np.array([0.5, np.nan]))
