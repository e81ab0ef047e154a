"""A residual net that is good on two CPU cores at 28 to 64 pixels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (1512.03385, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        # Careful: torch's bfloat16 gradient of a strided convolution over one pixel is whatever lay in memory; no stride is the same.
        y = self.conv1(x) if max(x.shape[2:]) > 1 else F.conv2d(x, self.conv1.weight, padding=1)
        y = F.relu_(self.norm1(y))
        return F.relu_(self.norm2(self.conv2(y)) + self.shortcut(x))


class Small(Encoder):
    """Stride-2 stem and three residual blocks of 64, 128 and 256 channels; 1.2 M parameters, vectors of 256.

    Args:
        channels: of the input.
        planes: channels of the stem and the first block; the others have two and four times as many.
        mean, std: of the data, for each channel.
    """

    downsample = 8

    def __init__(self, *, channels: int = 3, planes: int = 64, mean: list[float] | None = None, std: list[float] | None = None) -> None:
        super().__init__()
        self.width = 4 * planes
        self.normalize = Normalize(channels, mean, std)
        self.stem = nn.Sequential(nn.Conv2d(channels, planes, 3, 2, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(planes, planes, 1), Block(planes, 2 * planes, 2), Block(2 * planes, self.width, 2))

    def feature_map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width h w"]:
        """What is averaged into the vector; h is H / 8, rounded up."""
        return self.blocks(self.stem(self.normalize(x)))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        return self.feature_map(x).mean(dim=(2, 3))
