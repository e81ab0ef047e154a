"""Noise that belongs to an image: the same in every epoch, every crop and every process, and never stored.

A network that meets an image with new noise in every epoch sees, on average, the clean image. Here the noise of a pixel is a function of
(seed, number of the image, channel, row, column), by splitmix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195), so
each image has one noisy version.

Axes: B images, C channels, S side of a window.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Kind = Literal["gaussian", "poisson"]


class FixedNoise:
    """Adds to each image the noise that is its own. Values are neither rounded nor cut to [0, 1], as an error of mean 0 must keep it.

    Args:
        kind: gaussian noise of one strength everywhere, or poisson: as many photons as light would send, in whole numbers.
        level: of gaussian noise the standard deviation in units of 0..255; of poisson noise the mean number of photons of a white pixel.
        seed: another one is other noise.

    Raises:
        ValueError: level is not positive and finite, or no such kind.
    """

    def __init__(self, kind: Kind, level: float, seed: int) -> None:
        if kind not in ("gaussian", "poisson"):
            raise ValueError(f'noise must be "gaussian" or "poisson", got "{kind}"')
        if not 0 < level < math.inf:
            raise ValueError(f"level of {kind} noise must be positive and finite, got {level}")
        self.kind, self.level, self.seed = kind, level, seed
        self.table = _poisson_table(level) if kind == "poisson" else None

    def __call__(
        self, images: UInt8[Tensor, "B C S1 S2"], index: Int[Tensor, " B"], rows: Int[Tensor, "B S1"], columns: Int[Tensor, "B S2"]
    ) -> Float[Tensor, "B C S1 S2"]:
        """Windows with noise, 0 to 1 where there is none.

        Args:
            images: windows of images.
            index: numbers of the images in the data.
            rows, columns: where the pixels are in their images.
        """
        bits = _bits(self.seed, index, images.shape[1], rows, columns)
        if self.table is None:
            return images.float().div_(255).add_(_normal(bits), alpha=self.level / 255)
        table, value = self.table.to(images.device), images.long()
        chance = ((bits >> 12) & (2**52 - 1)).double().mul_(2.0**-52)  # uniform in [0, 1)
        photons = torch.searchsorted(table.flatten(), chance.add_(value), right=True) - value * table.shape[1]
        return photons.float().div_(self.level)


def _bits(seed: int, index: Tensor, channels: int, rows: Tensor, columns: Tensor) -> Int[Tensor, "B C S1 S2"]:
    """64 random bits for each value."""
    key = _mix(_mix(torch.tensor(_signed(seed % 2**64), device=index.device)) + index)
    channel = torch.arange(channels, device=index.device)
    # Images have fewer than 2^24 rows and columns, and 2^12 channels: no two values of an image have the same number.
    number = channel.view(1, -1, 1, 1) * 2**48 + rows[:, None, :, None] * 2**24 + columns[:, None, None, :]
    return _mix(number * _signed(0x9E3779B97F4A7C15) + key.view(-1, 1, 1, 1))


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser; products wrap around 2^64 as they must."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right with zeros coming in; torch's own shift repeats the sign."""
    return (x >> by) & (2 ** (64 - by) - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _normal(bits: Tensor) -> Tensor:
    """Box and Muller's cosine from the upper and the lower 32 bits."""
    radius = _shifted(bits, 32).float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_()
    return (bits & (2**32 - 1)).float().mul_(2 * math.pi * 2.0**-32).cos_().mul_(radius)


def _poisson_table(level: float) -> Float[Tensor, "256 K"]:
    """Row v: v plus the chance of at most k photons from a pixel of value v. One increasing line, so one search finds any of them."""
    mean = torch.arange(256, dtype=torch.float64)[:, None] * (level / 255)
    k = torch.arange(math.ceil(level + 12 * math.sqrt(level)) + 20, dtype=torch.float64)
    table = (torch.special.xlogy(k, mean) - mean - torch.lgamma(k + 1)).exp().cumsum(dim=1).clamp_(max=1)
    table[:, -1] = 1
    return table + torch.arange(256)[:, None]
