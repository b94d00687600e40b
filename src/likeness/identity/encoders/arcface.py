"""ArcFace's network in torch, so that a loss has gradients through it (ONNX files of recognizers give none).

IResNet as insightface's arcface_torch builds it (arXiv:1801.07698v4, section 3.1.2), with its parameter names. Weights
are read from the ONNX file of a face engine; `onnx_iresnet` reads the graph. Nothing here detects faces.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from likeness.errors import ConfigError, WeightsError
from likeness.faces.engines.onnx_engine import CHIP_PX, ENGINE_SPECS
from likeness.faces.engines.registry import SHORT_NAMES
from likeness.faces.geometry.layouts import EYE_CENTERS, LandmarkLayout
from likeness.identity.encoders.alignment import align_faces, arcface_template
from likeness.weights import locate

NORM_EPS = 1e-5
"""Of every batch norm; `onnx_iresnet` moves another one of a file into the running variance."""
FILL_VALUE = -1.0
"""What the engines fill outside the picture with, in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IResNetConfig:
    """The size of an IResNet. ArcFace's are 18, 34, 50 and 100 layers deep: `DEPTHS`."""

    blocks: tuple[int, ...]
    """Residual blocks of each stage; the first of a stage halves the resolution."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage."""
    embedding_width: int = 512

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.widths) or CHIP_PX % 2 ** len(self.blocks):
            raise ConfigError(f"An IResNet has as many `blocks` as `widths`, at most 4; these are {self}.")


DEPTHS = {
    18: IResNetConfig(blocks=(2, 2, 2, 2)),
    34: IResNetConfig(blocks=(3, 4, 6, 3)),
    50: IResNetConfig(blocks=(3, 4, 14, 3)),
    100: IResNetConfig(blocks=(3, 13, 30, 3)),
}
"""R50 is in buffalo_l (`w600k_r50.onnx`), R100 in antelopev2 and AuraFace (`glintr100.onnx`)."""


class IResNetBlock(nn.Module):
    """BN, 3x3 convolution, BN, PReLU, 3x3 convolution with stride, BN; plus the input.

    Shapes:
        hidden: (batch, width_in, height, width)
        returns: (batch, width_out, height / stride, width / stride)
    """

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out, eps=NORM_EPS)
        self.prelu = nn.PReLU(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out, eps=NORM_EPS)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            projection = nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(width_out, eps=NORM_EPS))

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(hidden))))
        return self.bn3(self.conv2(inner)) + self.downsample(hidden)


class ArcFace(nn.Module):
    """From an aligned face to its embedding, not normalized. Always in evaluation mode; an `IdentityRecognizer`.

    Shapes:
        faces: (batch, 3, 112, 112) RGB in [-1, 1]
        returns: (batch, embedding_width)

    Args:
        config: The size.
        layout: Of the landmarks that `embed` is given.
    """

    def __init__(self, config: IResNetConfig, *, layout: LandmarkLayout = EYE_CENTERS) -> None:
        super().__init__()
        self.config = config
        self.template = arcface_template(layout)
        first, last = config.widths[0], config.widths[-1]
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first, eps=NORM_EPS)
        self.prelu = nn.PReLU(first)
        width = first
        for stage, (blocks, width_out) in enumerate(zip(config.blocks, config.widths, strict=True), start=1):
            layers = [IResNetBlock(width if not i else width_out, width_out, 1 if i else 2) for i in range(blocks)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
            width = width_out
        self.bn2 = nn.BatchNorm2d(last, eps=NORM_EPS)
        side = CHIP_PX // 2 ** len(config.blocks)
        self.fc = nn.Linear(last * side * side, config.embedding_width)
        self.features = nn.BatchNorm1d(config.embedding_width, eps=NORM_EPS)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the running statistics belong to the weights."""
        del mode
        return super().train(False)

    def forward(self, faces: Tensor) -> Tensor:
        hidden = self.prelu(self.bn1(self.conv1(faces)))  # (batch, 64, 112, 112)
        for stage in range(1, len(self.config.blocks) + 1):
            hidden = self.get_submodule(f"layer{stage}")(hidden)
        hidden = self.bn2(hidden).flatten(1)  # (batch, 512 * 7 * 7)
        return self.features(self.fc(hidden))

    @property
    def embedding_width(self) -> int:
        return self.config.embedding_width

    def embed(self, pictures: Tensor, landmarks: Tensor, *, is_mirrored: bool = False) -> Tensor:
        """Embeddings of pictures (batch, 3, height, width) in [-1, 1] with known landmarks, in float32.

        With ArcFace's own five points the crop is the engine's to half a gray level, its rounding to uint8.
        """
        device = pictures.device.type  # torch's meta device, on which costs are counted, has no autocast.
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            crops = align_faces(pictures.float(), landmarks, self.template, CHIP_PX, fill=FILL_VALUE, antialias=True)
            return self(crops.flip(-1) if is_mirrored else crops)

    def standardize(self, embedding: Tensor) -> Tensor:
        """The embedding itself: ArcFace is trained for the cosine of raw embeddings."""
        return embedding

    @classmethod
    def read(cls, path: Path, *, layout: LandmarkLayout = EYE_CENTERS) -> Self:
        """Read the frozen network from an ONNX file in the layout of arcface_torch's export.

        Raises:
            ResourceError: onnx is not installed.
            WeightsError: The file is no such network.
        """
        from likeness.identity.encoders.onnx_iresnet import read_iresnet

        config, state = read_iresnet(path)
        model = cls(config, layout=layout)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(f"{path} is no IResNet of ArcFace: {error}. Pull its weights again.") from error
        return model.requires_grad_(False)

    @classmethod
    def of_engine(cls, name: str, *, layout: LandmarkLayout = EYE_CENTERS) -> Self:
        """The recognizer of a face engine: its embeddings are comparable with those of the engine.

        Raises:
            ConfigError: The engine has no ArcFace.
            ResourceError: onnx is not installed.
            WeightsError: The weights are missing or no IResNet.
        """
        name = SHORT_NAMES.get(name, name)
        if name not in ARCFACE_ENGINES:
            raise ConfigError(f"The face engine `{name}` has no ArcFace. Use one of {', '.join(ARCFACE_ENGINES)}.")
        weights, file = ENGINE_SPECS[name].recognizer_file
        located = locate(weights)
        return cls.read(located / file if located.is_dir() else located, layout=layout)


ARCFACE_ENGINES = tuple(
    name for name, spec in ENGINE_SPECS.items() if spec.embedding_width == DEPTHS[50].embedding_width
)
"""Engines whose recognizer is an ArcFace."""
