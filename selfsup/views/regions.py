"""Regions of an image that a context encoder does not see (1604.07379, section 3.3). In every mask True means hidden.

Axes: B images, S side of an image.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from selfsup.views.sampling import uniform

SHARE = 1 / 4
"""Of an image, at most, is hidden (section 3.3)."""


def central(rows: int, image_size: int, side: int, device: torch.device | None = None) -> Bool[Tensor, "B 1 S S"]:
    """The central square of `side` pixels; where that is not in the middle of a pixel, the one above and left of it."""
    inside = torch.zeros(rows, 1, image_size, image_size, dtype=torch.bool, device=device)
    start = (image_size - side) // 2
    inside[:, :, start : start + side, start : start + side] = True
    return inside


def random_blocks(rows: int, generator: torch.Generator, image_size: int, blocks: int) -> Bool[Tensor, "B 1 S S"]:
    """Rectangles that may overlap, their sides drawn anew for each: together at most a quarter of the image, each inside of it.

    A side is uniform between a half of the largest and the largest, S / (2 sqrt(blocks)), and at least a pixel.

    Raises:
        ValueError: more blocks than there are pixels for.
    """
    largest = math.floor(image_size * math.sqrt(SHARE / blocks)) if blocks > 0 else 0
    if largest < 1:
        most = math.floor(image_size**2 * SHARE)
        raise ValueError(f"blocks must be between 1 and {most} for images of {image_size} pixels, got {blocks}")
    smallest = max(1, largest // 2)
    place = torch.arange(image_size, device=generator.device)
    inside = []
    for _ in range(2):  # rows, then columns
        side = uniform(rows, generator, float(smallest), largest + 1.0, blocks, 1).long().clamp(max=largest)
        room = image_size - side
        start = (uniform(rows, generator, 0.0, 1.0, blocks, 1) * (room + 1)).long().minimum(room)
        inside.append((place >= start) & (place < start + side))  # (B, blocks, S)
    return (inside[0][:, :, :, None] & inside[1][:, :, None, :]).any(dim=1, keepdim=True)


def random_regions(rows: int, generator: torch.Generator, image_size: int) -> Bool[Tensor, "B 1 S S"]:
    """Blobs of any shape: exactly a quarter of the pixels, rounded, those where smooth noise is least.

    As in the authors' released code, whose noise has a value every 17 of 128 pixels; the paper takes outlines of segmented objects.
    """
    coarse = max(2, round(image_size * 7.5 / 128))
    noise = uniform(rows, generator, 0.0, 1.0, 1, coarse, coarse)
    smooth = F.interpolate(noise, size=(image_size, image_size), mode="bicubic").flatten(1)
    hidden = torch.zeros_like(smooth, dtype=torch.bool)
    hidden.scatter_(1, smooth.topk(round(image_size**2 * SHARE), dim=1, largest=False).indices, True)
    return hidden.view(rows, 1, image_size, image_size)
