"""Rotation by quarter turns, as the pretext task of RotNet needs it (Gidaris, Singh and Komodakis, ICLR 2018, 1803.07728)."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from selfsup.views.sampling import integers


def rotate(images: Shaped[Tensor, "B C H W"], turns: Int[Tensor, " B"]) -> Shaped[Tensor, "B C H W"]:
    """Turn image i by turns[i] x 90 degrees against the clock, as torch.rot90; pixels move, none is interpolated.

    Args:
        images: square images of any dtype.
        turns: 0, 1, 2 or 3 for each image.
    Raises:
        ValueError: the images are not square, so that a quarter turn would not fit.
    """
    b, c, height, width = images.shape
    if height != width:
        raise ValueError(f"quarter turns need square images, got {height} x {width} pixels; crop them first")
    place = torch.arange(height * width, device=images.device).view(height, width)
    sources = torch.stack([place.rot90(k).flatten() for k in range(4)])  # (4, S S): pixel j of the turned image was pixel sources[k, j]
    index = sources[turns][:, None].expand(b, c, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def random_turns(rows: int, generator: torch.Generator) -> Int[Tensor, " rows"]:
    """(rows,) int64: 0, 1, 2 or 3, equally likely."""
    return integers(rows, generator, 4)
