"""From a vector back to an image of any size, or to a vector.

Axes: B items, C channels, S side of a square image, D length of a vector.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.build import input_channels
from selfsup.models.heads import mlp

HIDDEN = 512
"""Units of a vector's decoder, at least: those of the encoder `mlp`, as a short code has much to say."""


def halvings(image_size: int) -> list[int]:
    """Sides from 4 or less up to the image's, each the half of the next, rounded down: 28 gives 3, 7, 14, 28.

    Raises:
        ValueError: an image below 8 pixels.
    """
    if image_size < 8:
        raise ValueError(f"images must be at least 8 pixels wide here, got image_size={image_size}; choose --image-size 8 or more")
    sides = [image_size]
    while sides[-1] > 4:
        sides.append(sides[-1] // 2)
    return sides[::-1]


def plane_counts(image_size: int, base: int = 64, most: int = 512) -> list[int]:
    """Channels at each side of `halvings` but the image's own, coarse to fine: `base` doubled with each halving, to at most `most`."""
    return [min(base * 2**i, most) for i in range(len(halvings(image_size)) - 1)][::-1]


def smallest_map(image_size: int, base: int = 64) -> tuple[int, int, int]:
    """Planes and both sides of the map that `growth` starts from."""
    side = halvings(image_size)[0]
    return plane_counts(image_size, base)[0], side, side


def growth(image_size: int, channels: int, base: int = 64) -> nn.Sequential:
    """The layers of `ImageDecoder` from its small map on: (B, *smallest_map) -> (B, channels, S, S), unbounded."""
    sides, planes = halvings(image_size), plane_counts(image_size, base)
    layers: list[nn.Module] = [nn.BatchNorm2d(planes[0]), nn.ReLU(inplace=True)]
    for i, (inputs, outputs) in enumerate(zip(planes, [*planes[1:], channels], strict=True)):
        last = i == len(planes) - 1
        layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, output_padding=sides[i + 1] - 2 * sides[i], bias=last))
        layers += [] if last else [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class ImageDecoder(nn.Module):
    """(B, width) -> (B, C, S, S): a projection to a small map, then transposed convolutions that double it.

    They are 4x4 with stride 2, each followed by batch normalisation and ReLU but for the last, whose output is unbounded. Where a side is
    odd, one row and column are added (`output_padding`), so that any size comes out exactly.

    Args:
        width: length of the vector.
        channels: C of the image.
        image_size: S in pixels, 8 or more.
        base: planes of the last hidden map; they double towards the vector, to 512 at most.

    Raises:
        ValueError: an image below 8 pixels.
    """

    def __init__(self, width: int, channels: int, image_size: int, base: int = 64) -> None:
        super().__init__()
        self.smallest = smallest_map(image_size, base)
        self.project = nn.Linear(width, math.prod(self.smallest), bias=False)
        self.grow = growth(image_size, channels, base)

    def forward(self, h: Float[Tensor, "B width"]) -> Float[Tensor, "B C S S"]:
        """(B, width) -> (B, C, S, S), unbounded."""
        return self.grow(self.project(h).unflatten(1, self.smallest))


def decoder(width: int, *, channels: int, image_size: int) -> nn.Module:
    """(B, width) -> (B, channels, image_size, image_size), or (B, channels) when image_size is 0; unbounded outputs.

    Raises:
        ValueError: an image below 8 pixels.
    """
    if image_size == 0:
        return mlp(width, max(2 * width, HIDDEN), channels)
    return ImageDecoder(width, channels, image_size)


def decoder_of_code(encoder: Encoder, width: int, *, image_size: int, hidden_size: int) -> nn.Module:
    """From a code of any width back to what an encoder takes: convolutions for images, two hidden layers for vectors; unbounded outputs.

    There is no batch normalisation in the decoder of vectors, so that codes of one item do not meet those of others.

    Args:
        encoder: says how many channels or columns there are.
        width: length of the code.
        image_size: S in pixels, 8 or more; 0 for vectors.
        hidden_size: width of the hidden layers for vectors.

    Raises:
        ValueError: an image below 8 pixels, or an encoder that does not say what it takes.
    """
    channels = input_channels(encoder)
    return ImageDecoder(width, channels, image_size) if image_size else mlp(width, hidden_size, hidden_size, channels, norm=False)
