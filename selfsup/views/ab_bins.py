"""Colours as classes: the a, b plane of Lab in squares of 10 x 10, those that sRGB reaches (1603.08511, section 2.1).

Axes: Q bins, N colours.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.views.lab import rgb_to_lab

GRID = 10
"""Side of a bin, in units of a and b."""


@functools.cache
def ab_bins() -> Float[Tensor, "Q 2"]:
    """Centres (a, b) of the bins that hold a colour of sRGB, in order of a, then b; 261 of them, where the paper's list has 313.

    The faces of the cube are enough: a line of any L through a colour within leaves the cube's image through one of them.
    """
    value = torch.linspace(0, 1, 256, dtype=torch.float64)
    u, v = torch.meshgrid(value, value, indexing="ij")
    faces = [torch.stack([*(u, v)[:i], torch.full_like(u, end), *(u, v)[i:]]) for i in range(3) for end in (0.0, 1.0)]
    a, b = (rgb_to_lab(torch.stack(faces))[:, 1:] / GRID).round().long().unbind(1)
    reached = (a * 100 + b + 50).unique()  # one number for two, as rows are slow to sort
    return torch.stack([reached.div(100, rounding_mode="floor"), reached.remainder(100) - 50], dim=1).float() * GRID


def nearest(ab: Float[Tensor, "N 2"], bins: Float[Tensor, "Q 2"], k: int = 1) -> tuple[Float[Tensor, "N {k}"], Int[Tensor, "N {k}"]]:
    """Squared distances and numbers of the k bins that are nearest to each colour, the nearest first."""
    distance = (ab[:, :1] - bins[:, 0]).square_().add_((ab[:, 1:] - bins[:, 1]).square_())
    return distance.topk(k, dim=1, largest=False)
