"""Inception-v3 of the Inception Score and FID: TensorFlow's network of 2015-12-05, in torch-fidelity's file.

It differs from torchvision's Inception-v3: 1008 classes, average pooling without the padding, and maximum pooling in
the last block (arXiv:1512.00567, and the graph `inception-2015-12-05`). Names of modules are
those of the file. Images are resized as in TensorFlow 1, without half-pixel centers.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

SIDE_PX = 299
NUM_CLASSES = 1008


class Convolution(nn.Module):
    """Convolution, batch normalization, rectifier."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else 0
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, values: Tensor) -> Tensor:
        return relu(self.bn(self.conv(values)))


def average(values: Tensor) -> Tensor:
    return avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1 x 1, 5 x 5, two 3 x 3, pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64, 1)
        self.branch5x5_1 = Convolution(inputs, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, values: Tensor) -> Tensor:
        branches = (
            self.branch1x1(values),
            self.branch5x5_2(self.branch5x5_1(values)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(values))),
            self.branch_pool(average(values)),
        )
        return torch.cat(branches, dim=1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2, same=False)

    def forward(self, values: Tensor) -> Tensor:
        branches = (
            self.branch3x3(values),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(values))),
            max_pool2d(values, 3, stride=2),
        )
        return torch.cat(branches, dim=1)


class BlockC(nn.Module):
    """17 x 17: rows and columns of seven."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1 = Convolution(768, width, 1)
        self.branch7x7_2 = Convolution(width, width, (1, 7))
        self.branch7x7_3 = Convolution(width, 192, (7, 1))
        self.branch7x7dbl_1 = Convolution(768, width, 1)
        self.branch7x7dbl_2 = Convolution(width, width, (7, 1))
        self.branch7x7dbl_3 = Convolution(width, width, (1, 7))
        self.branch7x7dbl_4 = Convolution(width, width, (7, 1))
        self.branch7x7dbl_5 = Convolution(width, 192, (1, 7))
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, values: Tensor) -> Tensor:
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(values)))
        branches = (
            self.branch1x1(values),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(values))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(twice)),
            self.branch_pool(average(values)),
        )
        return torch.cat(branches, dim=1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(768, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1 = Convolution(768, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2, same=False)

    def forward(self, values: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(values)))
        branches = (
            self.branch3x3_2(self.branch3x3_1(values)),
            self.branch7x7x3_4(seven),
            max_pool2d(values, 3, stride=2),
        )
        return torch.cat(branches, dim=1)


class BlockE(nn.Module):
    """8 x 8; the last block pools by maximum, which only the network of 2015-12-05 does."""

    def __init__(self, inputs: int, *, pools_maximum: bool) -> None:
        super().__init__()
        self.pools_maximum = pools_maximum
        self.branch1x1 = Convolution(inputs, 320, 1)
        self.branch3x3_1 = Convolution(inputs, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3))
        self.branch3x3_2b = Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, values: Tensor) -> Tensor:
        once = self.branch3x3_1(values)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(values))
        pooled = max_pool2d(values, 3, stride=1, padding=1) if self.pools_maximum else average(values)
        branches = (
            self.branch1x1(values),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(pooled),
        )
        return torch.cat(branches, dim=1)


class Inception(nn.Module):
    """Features and class probabilities of pictures.

    Shapes:
        pictures: (batch, 3, height, width), RGB from 0 to 255
        returns: features (batch, 2048); probabilities (batch, 1008), of logits without the bias
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, same=False)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, pools_maximum=False)
        self.Mixed_7c = BlockE(2048, pools_maximum=True)
        self.fc = nn.Linear(2048, NUM_CLASSES)

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        values = (resize_as_tensorflow(pictures, SIDE_PX) - 128) / 128
        values = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(values)))
        values = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(values, 3, stride=2)))
        values = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(values, 3, stride=2))))
        values = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(values)))
        values = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(values)))
        features = self.Mixed_7c(self.Mixed_7b(values)).mean(dim=(2, 3))  # (batch, 2048)
        return features, (features @ self.fc.weight.T).softmax(dim=-1)


def resize_as_tensorflow(pictures: Tensor, side_px: int) -> Tensor:
    """Bilinear, source place = target place x scale: the first pixels of both fall on each other.

    Shapes:
        pictures: (batch, channels, height, width)
        returns: (batch, channels, side_px, side_px)
    """
    for axis in (-2, -1):
        size = pictures.shape[axis]
        places = torch.arange(side_px, dtype=torch.float32, device=pictures.device) * (size / side_px)
        low = places.long()
        high = (low + 1).clamp(max=size - 1)
        share = places - low
        share = share[:, None] if axis == -2 else share
        first, second = pictures.index_select(axis, low), pictures.index_select(axis, high)
        pictures = first + (second - first) * share
    return pictures
