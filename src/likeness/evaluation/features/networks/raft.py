"""RAFT, the optical flow of VBench's dynamic degree (arXiv:2003.12039v3), for `raft-things.pth`.

Inference of the full model: features at an eighth of the size, correlation of all pairs in four levels, a recurrent
update, and upsampling by learned convex combinations. Names of modules are those of the published file.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, pad, relu, unfold

LEVELS = 4
RADIUS = 4
HIDDEN = 128


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1 = norm(outputs)
        self.norm2 = norm(outputs)
        self.downsample = None
        if stride > 1:
            # The published file holds this norm under both names.
            self.norm3 = norm(outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), self.norm3)

    def forward(self, values: Tensor) -> Tensor:
        shortcut = values if self.downsample is None else self.downsample(values)
        values = relu(self.norm1(self.conv1(values)))
        return relu(shortcut + relu(self.norm2(self.conv2(values))))


class Encoder(nn.Module):
    """Features at an eighth of the image size.

    Shapes:
        picture: (batch, 3, height, width)
        returns: (batch, outputs, height / 8, width / 8)
    """

    def __init__(self, outputs: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.norm1 = norm(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1, norm), ResidualBlock(64, 64, 1, norm))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2, norm), ResidualBlock(96, 96, 1, norm))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2, norm), ResidualBlock(128, 128, 1, norm))
        self.conv2 = nn.Conv2d(128, outputs, 1)

    def forward(self, picture: Tensor) -> Tensor:
        values = relu(self.norm1(self.conv1(picture)))
        return self.conv2(self.layer3(self.layer2(self.layer1(values))))


class MotionEncoder(nn.Module):
    """Correlation and current flow, as 128 channels of which the last two are the flow itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(64 + 192, HIDDEN - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = relu(self.convc2(relu(self.convc1(correlation))))
        moved = relu(self.convf2(relu(self.convf1(flow))))
        return torch.cat([relu(self.conv(torch.cat([seen, moved], dim=1))), flow], dim=1)


class GatedUpdate(nn.Module):
    """A convolutional GRU, along rows and then along columns."""

    def __init__(self) -> None:
        super().__init__()
        for number, (kernel, padding) in enumerate((((1, 5), (0, 2)), ((5, 1), (2, 0))), start=1):
            for gate in "zrq":
                layer = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel, padding=padding)
                self.add_module(f"conv{gate}{number}", layer)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        for number in (1, 2):
            update, reset, candidate = (self.get_submodule(f"conv{gate}{number}") for gate in "zrq")
            both = torch.cat([hidden, inputs], dim=1)
            share = torch.sigmoid(update(both))
            kept = torch.sigmoid(reset(both)) * hidden
            hidden = (1 - share) * hidden + share * torch.tanh(candidate(torch.cat([kept, inputs], dim=1)))
        return hidden


class FlowHead(nn.Module):
    """Predicts the update of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(relu(self.conv1(hidden)))


class UpdateBlock(nn.Module):
    """One refinement step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = GatedUpdate()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64 * 9, 1))

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.gru(hidden, torch.cat([context, self.encoder(flow, correlation)], dim=1))
        return hidden, self.flow_head(hidden)


class Raft(nn.Module):
    """Optical flow between pairs of frames.

    Shapes:
        first, second: (batch, 3, height, width), RGB from 0 to 255, sides that 8 divides
        returns: (batch, 2, height, width), px to the right and down
    """

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder(256, nn.InstanceNorm2d)
        self.cnet = Encoder(2 * HIDDEN, nn.BatchNorm2d)
        self.update_block = UpdateBlock()

    @torch.inference_mode()
    def forward(self, first: Tensor, second: Tensor, num_steps: int = 20) -> Tensor:
        first, second = first / 127.5 - 1, second / 127.5 - 1
        pyramid = correlate(self.fnet(first), self.fnet(second))
        hidden, context = self.cnet(first).split(HIDDEN, dim=1)
        hidden, context = torch.tanh(hidden), relu(context)
        batch, _, height, width = hidden.shape
        start = grid(height, width).to(hidden).expand(batch, -1, -1, -1)
        flow = torch.zeros_like(start)
        for _ in range(num_steps):
            hidden, step = self.update_block(hidden, context, look_up(pyramid, start + flow), flow)
            flow = flow + step
        return enlarge(flow, 0.25 * self.update_block.mask(hidden))


def correlate(first: Tensor, second: Tensor) -> list[Tensor]:
    """Correlation of all pairs of pixels, the second image averaged to four sizes.

    Shapes:
        first, second: (batch, channels, height, width)
        returns: four of (batch * height * width, 1, height / 2^level, width / 2^level)
    """
    height, width = first.shape[-2:]
    products = torch.einsum("bchw,bcyx->bhwyx", first, second) / first.shape[1] ** 0.5
    level = products.reshape(-1, 1, height, width)
    pyramid = [level]
    for _ in range(LEVELS - 1):
        level = avg_pool2d(level, 2)
        pyramid.append(level)
    return pyramid


def look_up(pyramid: list[Tensor], places: Tensor) -> Tensor:
    """Sample 9 x 9 correlations around each pixel at every level, bilinear, 0 outside.

    Shapes:
        places: (batch, 2, height, width), x and y at an eighth of the size
        returns: (batch, 4 * 81, height, width)
    """
    batch, _, height, width = places.shape
    offsets = torch.arange(-RADIUS, RADIUS + 1).to(places)
    # The published network was trained with x running along the first axis of the window.
    window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)
    centers = rearrange(places, "b c h w -> (b h w) 1 1 c")
    found = []
    for number, level in enumerate(pyramid):
        sides = torch.tensor([level.shape[-1] - 1, level.shape[-2] - 1]).to(places)
        # A level of one pixel spans nothing: only its own place is inside.
        spots = 2 * (centers / 2**number + window) / sides.clamp(min=1e-6) - 1
        found.append(grid_sample(level, spots, align_corners=True).flatten(1))
    return rearrange(torch.cat(found, dim=1), "(b h w) n -> b n h w", b=batch, h=height, w=width)


def enlarge(flow: Tensor, mask: Tensor) -> Tensor:
    """Eight times larger, each new pixel a convex combination of the nine flows around it."""
    batch, _, height, width = flow.shape
    weights = mask.view(batch, 1, 9, 8, 8, height, width).softmax(dim=2)
    around = unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    return rearrange((weights * around).sum(dim=2), "b c i j h w -> b c (h i) (w j)")


def grid(height: int, width: int) -> Tensor:
    """(1, 2, height, width): the x and y of every pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()[None]


def pad_to_eight(frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Pad by edge pixels until 8 divides both sides, half on each side; also returns the padding left and above."""
    height, width = frames.shape[-2:]
    down, across = -height % 8, -width % 8
    sides = (across // 2, across - across // 2, down // 2, down - down // 2)
    return pad(frames, sides, mode="replicate"), (sides[0], sides[2])
