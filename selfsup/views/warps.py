"""Warps of images: shearing, and elastic deformations that move each place a little, neighbours together.

Axes: N images, C channels, P side in pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.views.sampling import chance, normal, uniform

KNOTS = 4
"""Places in a row whose displacements are drawn; those between follow by cubic interpolation."""


def warp(x: Float[Tensor, "N C P P"], generator: torch.Generator, share: float, shear: float, elastic: float) -> Float[Tensor, "N C P P"]:
    """A share of the images sheared, and a share deformed, each drawn for itself; what lies outside is the nearest pixel of the border.

    Args:
        x: images.
        generator: draws what happens to each.
        share: probability of either, 0 to 1.
        shear: largest shear, in pixels across for each pixel along; each direction is uniform up to it, and one of both is taken.
        elastic: standard deviation of a knot's displacement, as a fraction of P.
    """
    n, side = len(x), x.shape[-1]
    sheared, deformed = chance(n, generator, share), chance(n, generator, share)
    along = chance(n, generator, 0.5)
    amount = uniform(n, generator, -shear, shear) * sheared
    line = (torch.arange(side, device=x.device) + 0.5) * 2 / side - 1  # -1 and 1 are the outer edges
    across, down = line.expand(side, side), line[:, None].expand(side, side)
    columns = across + (amount * along)[:, None, None] * down
    rows = down + (amount * ~along)[:, None, None] * across
    knots = normal(n, generator, 2, KNOTS, KNOTS) * (2 * elastic) * deformed[:, None, None, None]
    moved = F.interpolate(knots, size=(side, side), mode="bicubic", align_corners=False)
    where = torch.stack([columns, rows], dim=-1) + moved.permute(0, 2, 3, 1)
    return torch.where((sheared | deformed)[:, None, None, None], F.grid_sample(x, where, padding_mode="border", align_corners=False), x)
