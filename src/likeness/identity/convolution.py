"""The convolutional block of the small networks that read head crops."""

from torch import Tensor, nn


class Residual(nn.Module):
    """x + two normalized convolutions of x: (batch, width, height, width_px) stays what it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.body(hidden)
