"""Maps of an encoder, which it averages into its vector: for methods that predict something at every place of an image.

Axes: B images, C channels, D planes of a map, h and w its sides, S side of an image.
"""

import copy
import math
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.build import input_channels


class HasMap(Protocol):
    """An encoder that can be asked for its last map."""

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D, h, w)."""
        ...


def feature_map(encoder: Encoder, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D *sides"]:
    """The encoder's map (B, D, h, w), or its vector (B, width) where it has none."""
    return cast("HasMap", encoder).feature_map(x) if hasattr(encoder, "feature_map") else encoder(x)


def downsampling(encoder: Encoder) -> int | None:
    """By what the sides of an image are divided, and rounded up, to give those of the map; None where the encoder does not say."""
    found = getattr(encoder, "downsample", None)
    return found if isinstance(found, int) and hasattr(encoder, "feature_map") else None


@torch.no_grad()
def map_shape(encoder: Encoder, image_size: int) -> tuple[int, int, int] | None:
    """D, h and w of the map of images of image_size x image_size pixels, None where there is none; leaves the encoder as it was."""
    if not hasattr(encoder, "feature_map"):
        return None
    probe = copy.deepcopy(encoder).eval()  # neither dropout nor running statistics may notice
    device = next((p.device for p in encoder.parameters()), None)
    shape = feature_map(probe, torch.zeros(1, input_channels(encoder), image_size, image_size, device=device)).shape
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else None  # a wrapper's may be its encoder's vector


def map_values(encoder: Encoder, image_size: int) -> int:
    """How many numbers `feature_map` gives of an image of image_size x image_size pixels."""
    return math.prod(map_shape(encoder, image_size) or (encoder.width,))


class PerPlace(nn.Module):
    """(B, D, h, w) -> (B, outputs, height, width), unbounded: the map is doubled until it has the sides that are asked for.

    Each doubling repeats every place 2 x 2 times, then a 3x3 convolution with batch normalisation and ReLU; a 1x1 convolution ends it.

    Args:
        planes: D.
        outputs: numbers for each place.
        doublings: how often; at 0 there is the one 3x3 convolution nevertheless.
        hidden: planes in between.
    """

    def __init__(self, planes: int, outputs: int, doublings: int, hidden: int = 128) -> None:
        super().__init__()
        inputs = [planes, *[hidden] * (max(doublings, 1) - 1)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)) for n in inputs
        )
        self.outputs = nn.Conv2d(hidden, outputs, 1)

    def forward(self, maps: Float[Tensor, "B D h w"], sides: tuple[int, int]) -> Float[Tensor, "B outputs height width"]:
        """Predictions at `sides` = (height, width) places."""
        for left, block in zip(range(len(self.blocks))[::-1], self.blocks, strict=True):
            size = [-(-side // 2**left) for side in sides]
            maps = block(F.interpolate(maps, size=size, mode="nearest"))  # other modes' gradients differ from run to run on a GPU
        return self.outputs(maps)


def per_place(encoder: Encoder, outputs: int, image_size: int, places: int) -> PerPlace:
    """A `PerPlace` on the maps of an encoder, for places x places predictions about images of image_size x image_size pixels.

    Raises:
        ValueError: the encoder has no maps.
    """
    found = map_shape(encoder, image_size)
    if found is None:
        raise ValueError(
            "predictions at every place of an image need an encoder with a feature_map that gives (B, D, h, w); "
            "choose --encoder small, resnet18, resnet34, resnet50 or dcgan"
        )
    planes, side, _ = found
    return PerPlace(planes, outputs, doublings=max(0, -(-places // side) - 1).bit_length())
