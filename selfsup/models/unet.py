"""The U-Net that denoisers share, for images of any size.

Lehtinen et al., Noise2Noise, ICML 2018, appendix (https://arxiv.org/abs/1803.04189), with the changes of Neighbor2Neighbor's authors
(https://arxiv.org/abs/2101.02824, section 5.1): 96 planes and three 1x1 convolutions at the end, and slopes of 0.2.

The contracting half is an encoder; the expanding half is the decoder of a method. Where a side is odd, pooling rounds up and the expanding
half cuts what is too much, so nothing has to be padded; at multiples of 32 that is the papers' network.

Axes: B images, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize

PLANES = 48
STRIDE = 32
"""Of the smallest map: five poolings."""
REACH = 160
"""A pixel of the output knows nothing of the input this many pixels away or farther; a multiple of STRIDE."""
TILE = 1024
"""Sides above this plus twice REACH are worked on in tiles: a pixel needs some 800 bytes meanwhile."""
PIXELS = 2**20
"""That `UNet.forward` takes at a time: its first maps have 48 planes at the full size."""


class UNet(Encoder):
    """Contracting half: seven 3x3 convolutions of 48 planes and five poolings; the vector is the mean of the smallest map, of 48.

    Args:
        channels: C of the images.
        mean, std: of the data, for each channel.
    """

    width = PLANES

    def __init__(self, *, channels: int = 3, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        super().__init__()
        self.normalize = Normalize(channels, mean, std)
        self.first = _convolution(channels, PLANES)
        self.levels = nn.ModuleList(_convolution(PLANES, PLANES) for _ in range(5))
        self.last = _convolution(PLANES, PLANES)

    def maps(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """What the expanding half needs: the standardised image and the maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of its sides, rounded up."""
        maps = [self.normalize(x)]
        y = self.first(maps[0])
        for level in self.levels:
            y = F.max_pool2d(level(y), 2, ceil_mode=True)
            maps.append(y)
        maps[-1] = self.last(y)
        return maps

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """(B, C, H, W) in [0, 1] -> (B, 48), of any size."""
        rows = max(1, PIXELS // (x.shape[2] * x.shape[3]))
        return torch.cat([self.maps(part)[-1].mean(dim=(2, 3)) for part in x.split(rows)])


class Expanding(nn.Module):
    """Expanding half: the maps of a `UNet` -> (B, C, H, W), unbounded.

    Args:
        channels: C of the output, and of the images that the maps are of.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        below = [PLANES, *[2 * PLANES] * 4]  # planes of what comes from the coarser map
        beside = [*[PLANES] * 4, channels]  # planes of what the contracting half had at that size
        self.up = nn.ModuleList(nn.ConvTranspose2d(n, n, 2, 2) for n in below)
        self.merge = nn.ModuleList(
            nn.Sequential(_convolution(n + m, 2 * PLANES), _convolution(2 * PLANES, 2 * PLANES)) for n, m in zip(below, beside, strict=True)
        )
        pointwise = [nn.Conv2d(2 * PLANES, n, 1) for n in (2 * PLANES, 2 * PLANES, channels)]
        self.predict = nn.Sequential(pointwise[0], _activation(), pointwise[1], _activation(), pointwise[2])
        initialise(self)
        nn.init.kaiming_normal_(pointwise[2].weight, nonlinearity="linear")

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "B C H W"]:
        """Double the coarsest map five times, each time beside the map of that size."""
        y = maps[-1]
        for up, merge, skipped in zip(self.up, self.merge, maps[-2::-1], strict=True):
            y = up(y)[:, :, : skipped.shape[2], : skipped.shape[3]]
            y = merge(torch.cat([y, skipped], dim=1))
        return self.predict(y)


def in_tiles(network: Callable[[Tensor], Tensor], x: Float[Tensor, "B C H W"], tile: int = TILE) -> Float[Tensor, "B C H W"]:
    """A U-Net on an image of any size in bounded memory; the values are those of the whole image, up to rounding.

    Args:
        network: (B, C, h, w) -> the same shape, no value of which depends on the input REACH or more pixels away.
        x: images.
        tile: side in pixels of what is kept of each piece, a multiple of STRIDE.
    """
    height, width = x.shape[2:]
    if max(height, width) <= tile + 2 * REACH:
        return network(x)
    out = torch.empty_like(x)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            # Both corners at multiples of the stride, so that the poolings fall on the same pixels.
            y, x0 = max(0, top - REACH), max(0, left - REACH)
            piece = network(x[:, :, y : top + tile + REACH, x0 : left + tile + REACH])
            out[:, :, top : top + tile, left : left + tile] = piece[:, :, top - y : top - y + tile, left - x0 : left - x0 + tile]
    return out


def initialise(module: nn.Module) -> None:
    """He's weights for the slope of 0.2, biases 0; the authors' code has a tenth of them, which takes longer to get going."""
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(m.weight, a=0.2, nonlinearity="leaky_relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), _activation())
    initialise(layers)
    return layers


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)
