"""Encoder and decoder of VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, section 4.1).

Both are convolutions all the way, without normalisation: they take images of any size, and what they make of an image does not depend on
the others in its batch. The paper has 256 planes everywhere; the defaults here are those of the authors' published example.

Axes: B images, C channels, H and W of an image, h and w of its map: the image's sides divided by `downsample`, rounded up.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize

PLANES, BOTTLENECK = 128, 32


class Residual(nn.Module):
    """x plus ReLU, 3x3 convolution, ReLU, 1x1 convolution of it."""

    def __init__(self, planes: int, bottleneck: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, bottleneck, 3, 1, 1)
        self.conv2 = nn.Conv2d(bottleneck, planes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class VQEncoder(Encoder):
    """4x4 convolutions of stride 2 that halve the sides, a 3x3 convolution, two residual blocks.

    Args:
        downsample: by what the sides are divided, 2, 4, 8 or 16; the paper's is 4.
        channels: C of the images.
        planes: width of the maps but the first, which has half; the paper's is 256.
        bottleneck: width within a residual block; the paper's is 256.
        mean, std: of the data, for each channel.
    """

    def __init__(
        self,
        downsample: int,
        *,
        channels: int = 3,
        planes: int = PLANES,
        bottleneck: int = BOTTLENECK,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.width, self.downsample = planes, downsample
        self.normalize = Normalize(channels, mean, std)
        widths = _widths(downsample, planes)
        strided: list[nn.Module] = []
        for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True):
            strided += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU(inplace=True)]
        blocks = [Residual(planes, bottleneck) for _ in range(2)]
        self.shrink = nn.Sequential(*strided, nn.Conv2d(widths[-1], planes, 3, 1, 1), *blocks, nn.ReLU(inplace=True))

    def feature_map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width h w"]:
        """(B, C, H, W) in [0, 1] -> (B, width, h, w); sides that do not divide are filled up by repeating the last row and column."""
        down, right = (-side % self.downsample for side in x.shape[2:])
        x = self.normalize(x)
        return self.shrink(F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """The map's mean over its positions."""
        return self.feature_map(x).mean(dim=(2, 3))


class VQDecoder(nn.Module):
    """(B, code_size, h, w) -> (B, C, downsample h, downsample w), unbounded: the encoder's layers in reverse, strides transposed.

    Args:
        code_size: length of the vector at each position.
        downsample: by what the sides are multiplied, a power of 2.
        channels: C of the images.
        planes, bottleneck: as in the encoder.
    """

    def __init__(self, code_size: int, downsample: int, channels: int, planes: int = PLANES, bottleneck: int = BOTTLENECK) -> None:
        super().__init__()
        widths = _widths(downsample, planes)[::-1]
        blocks = [Residual(planes, bottleneck) for _ in range(2)]
        layers: list[nn.Module] = [nn.Conv2d(code_size, widths[0], 3, 1, 1), *blocks]
        for inputs, outputs in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.ReLU(inplace=True), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        self.grow = nn.Sequential(*layers)

    def forward(self, e: Float[Tensor, "B code_size h w"]) -> Float[Tensor, "B C H W"]:
        return self.grow(e)


def _widths(downsample: int, planes: int) -> list[int]:
    """Planes after each halving, fine to coarse.

    Raises:
        ValueError: not a power of 2 from 2 to 16.
    """
    if downsample not in (2, 4, 8, 16):
        raise ValueError(f"downsample must be 2, 4, 8 or 16, got {downsample}")
    halvings = downsample.bit_length() - 1
    return [planes // 2, *[planes] * (halvings - 1)] if halvings > 1 else [planes]
