"""Windows of images cut pixel by pixel: nothing is resized, so what is in single pixels, such as noise, stays as it is.

Axes: B images, C channels, H and W of the canvas, S side of the window.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from selfsup.method import Batch
from selfsup.views.geometry import canvas
from selfsup.views.sampling import uniform


class Windows(NamedTuple):
    """A square of each image, and where its pixels were."""

    image: UInt8[Tensor, "B C S S"]
    rows: Int[Tensor, "B S"]
    columns: Int[Tensor, "B S"]


def random_windows(batch: Batch, generator: torch.Generator, side: int) -> Windows:
    """A square of `side` pixels anywhere in each image, all places equally likely; an image that is smaller is mirrored at its edges."""
    images, sizes = canvas(batch)
    place = uniform(len(images), generator, 0.0, 1.0, 2)
    rows, columns = (_line(place[:, i], sizes[:, i], side) for i in (0, 1))
    item = torch.arange(len(images), device=images.device)[:, None, None]
    window = images.permute(0, 2, 3, 1)[item, rows[:, :, None], columns[:, None, :]]
    return Windows(window.permute(0, 3, 1, 2), rows, columns)


def _line(place: Tensor, length: Tensor, side: int) -> Int[Tensor, "B {side}"]:
    """Pixel numbers along one axis; beyond the last they run back, as in a mirror that shows the last pixel once."""
    free = (length - side).clamp(min=0)
    # float32 may round u (n + 1) up to n + 1, which would be one pixel too far.
    start = torch.minimum((place * (free + 1)).long(), free)
    line = start[:, None] + torch.arange(side, device=place.device)
    period = (2 * (length - 1)).clamp(min=1)[:, None]
    return torch.minimum(line % period, period - line % period).clamp(max=length[:, None] - 1)
