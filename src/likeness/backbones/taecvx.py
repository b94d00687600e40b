"""TAECVX: madebyollin's small decoder of CogVideoX latents (github.com/madebyollin/taehv), without its encoder.

For one frame it costs an eighth of the VAE's decoder; it serves the identity loss, and nothing is generated with it.
Its conventions are not the VAE's: order (batch, frames, channels, height, width), pixels in [0, 1], and latents as
diffusion has them, which are not divided by the scaling factor. The weights carry no word on the scale of CogVideoX-2B,
5B and 1.5, which differ; they fit one of them at best.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.weights import locate
from likeness.weights.strict import refuse_differences, shapes_of
from likeness.weights.tensors import read_tensors

LATENT_CHANNELS = 16
_WIDTHS = (256, 128, 64, 64)
_ENCODER_WIDTH = 64
_TIME_GROWTH = (1, 2, 2)
"""Frames that each stage makes of one."""
_GROWTH_LAYERS = ("7", "13", "19")
"""The 1x1 convolutions that grow time, by their place in the published list of layers."""


class MemoryBlock(nn.Module):
    """A residual block over a frame and the one before it.

    Shapes:
        hidden, before: (batch, width, height, width)
        returns: as `hidden`
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        return F.relu(self.conv(torch.cat([hidden, before], dim=1)) + hidden)


class TimeGrowth(nn.Module):
    """A 1x1 convolution that makes `factor` frames of one."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * factor, 1, bias=False)


class TaecvxDecoder(nn.Module):
    """From latents to frames. The places of the layers give the published names (`decoder.3.conv.0.weight`)."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"1": nn.Conv2d(LATENT_CHANNELS, _WIDTHS[0], 3, padding=1)}
        for stage, (width, after, growth) in enumerate(zip(_WIDTHS, _WIDTHS[1:], _TIME_GROWTH, strict=False)):
            first = 3 + 6 * stage
            layers |= {str(first + index): MemoryBlock(width) for index in range(3)}
            layers[str(first + 4)] = TimeGrowth(width, growth)
            layers[str(first + 5)] = nn.Conv2d(width, after, 3, padding=1, bias=False)
        layers["22"] = nn.Conv2d(_WIDTHS[-1], 3, 3, padding=1)
        self.decoder = nn.ModuleDict(layers)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames of a clip, as published: an odd number of latent frames loses its first three frames.

        Shapes:
            latents: (batch, frames, 16, height, width), as diffusion has them
            returns: (batch, 4 * frames or 4 * frames - 3, 3, 8 * height, 8 * width) in [-1, 1]
        """
        hidden = latents
        for stage in range(len(_TIME_GROWTH)):
            hidden = self._grow(self._stage(hidden, stage), stage)
        frames = self._each(self._last, hidden).clamp(0, 1)
        return 2 * (frames if latents.shape[1] % 2 == 0 else frames[:, 3:]) - 1

    def decode_first(self, latents: Tensor) -> Tensor:
        """The one frame of a lone latent frame; equal to `decode` but for the clamp, which has no gradient outside.

        Of the last growth of time only the last frame is computed, because no layer behind it reads another one.

        Shapes:
            latents: (batch, 16, height, width)
            returns: (batch, 3, 8 * height, 8 * width)
        """
        hidden = self._grow(self._stage(latents.unsqueeze(1), 0), 0)
        hidden = self._grow(self._stage(hidden, 1), 1)
        hidden = self._stage(hidden, 2)[:, -1:]
        return 2 * self._each(self._last, self._grow(hidden, 2, only_last=True)).squeeze(1) - 1

    def _stage(self, hidden: Tensor, stage: int) -> Tensor:
        """The memory blocks of a stage; before the first frame is nothing."""
        if not stage:
            bounded = 3 * torch.tanh(hidden / 3)
            hidden = self._each(lambda frames: F.relu(self.decoder["1"](frames)), bounded)
        for index in range(3 + 6 * stage, 6 + 6 * stage):
            before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
            flat = self.decoder[str(index)](hidden.flatten(0, 1), before.flatten(0, 1))
            hidden = flat.unflatten(0, hidden.shape[:2])
        return hidden

    def _grow(self, hidden: Tensor, stage: int, *, only_last: bool = False) -> Tensor:
        """Twice the height and width, and more frames."""
        first = 3 + 6 * stage
        growth = self.decoder[str(first + 4)]
        assert isinstance(growth, TimeGrowth)
        weight = growth.conv.weight
        factor = 1 if only_last else _TIME_GROWTH[stage]
        # A 1x1 convolution commutes with nearest upsampling; done first it costs a quarter.
        flat = F.conv2d(hidden.flatten(0, 1), weight[-factor * hidden.shape[2] :])
        batch, frames = hidden.shape[:2]
        flat = flat.unflatten(1, (factor, -1)).flatten(0, 1)  # (batch * frames * factor, width, height, width)
        flat = self.decoder[str(first + 5)](F.interpolate(flat, scale_factor=2.0))
        return flat.unflatten(0, (batch, frames * factor))

    def _last(self, frames: Tensor) -> Tensor:
        return self.decoder["22"](F.relu(frames))

    @staticmethod
    def _each(function: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """A function of single frames, of all frames."""
        return function(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Load the frozen decoder from `taecvx.safetensors`, or from where `likeness models pull taecvx` puts it.

        A file that holds the encoder too has to hold all of it; only the decoder's tensors are used.

        Raises:
            WeightsError: The file is missing or damaged, or holds other tensors.
        """
        path = path or locate("taecvx")
        remedy = "Pull its weights again: `likeness models pull taecvx`."
        state = read_tensors(path, remedy=remedy)
        model = cls()
        expected = shapes_of(model.state_dict())
        for layer in _GROWTH_LAYERS:
            # As published: a file may grow time further; the last frames of each growth are the ones to keep.
            name = f"decoder.{layer}.conv.weight"
            rows = expected[name][0]
            if name in state and len(state[name]) % rows == 0:
                state[name] = state[name][-rows:].contiguous()
        has_encoder = any(name.startswith("encoder.") for name in state)
        wanted = expected | encoder_shapes() if has_encoder else expected
        refuse_differences(wanted, shapes_of(state), what=str(path), remedy=remedy)
        model.load_state_dict({name: state[name].float() for name in expected})
        return model.requires_grad_(False).eval()


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the encoder's tensors in the published file."""
    width = _ENCODER_WIDTH
    shapes: dict[str, tuple[int, ...]] = {"encoder.0.weight": (width, 3, 3, 3), "encoder.0.bias": (width,)}
    for stage, stride in enumerate((2, 2, 1)):
        first = 2 + 5 * stage
        shapes[f"encoder.{first}.conv.weight"] = (width, stride * width, 1, 1)
        shapes[f"encoder.{first + 1}.weight"] = (width, width, 3, 3)
        for index in range(first + 2, first + 5):
            for place, width_in in (("0", 2 * width), ("2", width), ("4", width)):
                shapes[f"encoder.{index}.conv.{place}.weight"] = (width, width_in, 3, 3)
                shapes[f"encoder.{index}.conv.{place}.bias"] = (width,)
    return shapes | {"encoder.17.weight": (LATENT_CHANNELS, width, 3, 3), "encoder.17.bias": (LATENT_CHANNELS,)}
