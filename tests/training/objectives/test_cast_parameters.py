from unittest import mock

import torch
from torch import nn

from likeness.training.objectives.diffusion import CastParameters


def test_flash_attention_is_disabled_for_bfloat16_on_a_cpu_alone():
    with mock.patch("torch.backends.cuda.enable_flash_sdp") as enable:
        CastParameters(nn.Linear(1, 1, device="meta"), torch.bfloat16)  # Stands for a GPU.
        CastParameters(nn.Linear(1, 1), torch.float32)
        enable.assert_not_called()
        CastParameters(nn.Linear(1, 1), torch.bfloat16)
        enable.assert_called_once_with(False)
