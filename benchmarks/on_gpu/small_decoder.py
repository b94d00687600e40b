"""A decoder of the shape of TAECVX (madebyollin/taehv), with random weights: what decoding by it costs.

Three stages at doubling resolution, the last two doubling the frames as well; each block sees a frame and the one
before it. It is for timing and does not read the published weights.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad


class PastBlock(nn.Module):
    """Three convolutions over a frame and its past, around a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        past = pad(x[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        y = self.layers(torch.cat([x, past], dim=2).flatten(0, 1))
        return (y.unflatten(0, x.shape[:2]) + x).relu()


class Grow(nn.Module):
    """Double the sides, and make `times` frames of each."""

    def __init__(self, width: int, next_width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.split = nn.Conv2d(width, width * times, 1, bias=False)
        self.project = nn.Conv2d(width, next_width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        y = self.split(interpolate(x.flatten(0, 1), scale_factor=2))
        y = self.project(rearrange(y, "f (times c) y x -> (f times) c y x", times=self.times))
        return y.unflatten(0, (batch, -1))


class SmallDecoder(nn.Module):
    """Latents to frames.

    Shapes:
        latents: (batch, latent_frames, 16, height, width)
        returns: (batch, 4 * latent_frames - 3, 3, 8 * height, 8 * width)
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        widths = (width, width // 2, width // 4, width // 4)
        self.first = nn.Conv2d(16, width, 3, padding=1)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*(PastBlock(widths[i]) for _ in range(3)), Grow(widths[i], widths[i + 1], times))
                for i, times in enumerate((1, 2, 2))
            )
        )
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        batch = len(latents)
        x = self.first((3 * (latents / 3).tanh()).flatten(0, 1)).relu().unflatten(0, (batch, -1))
        frames = self.last(self.stages(x).relu().flatten(0, 1)).unflatten(0, (batch, -1))
        return frames[:, 3:]
