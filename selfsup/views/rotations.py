"""Rotation by quarter turns and by any angle, as the pretext task of RotNet needs it.

Gidaris, Singh and Komodakis, ICLR 2018. https://arxiv.org/abs/1803.07728
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from selfsup.views import blur
from selfsup.views.sampling import integers, normal, uniform

SIGMA, NOISE = 1.2, 2 / 255
"""Of the blur before a rotation by any angle, in pixels, and of the noise after it.

Noise with the spectrum of photographs has no direction, so what tells its angle is the pixel grid. The one number that was found to tell
0 from 45 degrees best, the ratio of second differences along rows and columns to those along diagonals, differs by 1.2 of its standard
deviations after plain interpolation of 64 pixels to 32, by 0.2 with the blur and the noise. Either alone leaves much of it.
"""

MARGIN = 3
"""Pixels around a circle that is turned: the filters of cropping and blurring work differently at the border of what they are given."""


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


def canvas_side(side: int) -> int:
    """Side in pixels of the square images out of which `rotate_any` cuts squares of `side` pixels: no turned square leaves them."""
    return math.ceil(side * math.sqrt(2)) + 2 * MARGIN


def rotate_any(
    images: Float[Tensor, "B C S S"], radians: Float[Tensor, "B n"], side: int, generator: torch.Generator
) -> Float[Tensor, "B n C {side} {side}"]:
    """Each image turned about its centre by n angles, against the clock, and its central square of `side` pixels: no corner is empty.

    Neither may sharpness give an angle away. A pixel grid that is turned by nothing would stay sharp where others are interpolated, and
    the grid itself would show: so all angles alike are blurred by a round gaussian, moved by a random part of a pixel, interpolated, and
    given as much noise as the eye does not see.

    Args:
        images: squares of `canvas_side(side)` pixels.
        radians: angles of each image.
        side: of what is returned, in pixels.
        generator: source of the shifts, up to half a pixel to each side, and of the noise.
    Raises:
        ValueError: images of another size.
    """
    canvas, (b, n) = canvas_side(side), radians.shape
    if images.shape[2:] != (canvas, canvas):
        raise ValueError(f"squares of {side} pixels need images of {canvas} x {canvas} pixels, got {images.shape[2]} x {images.shape[3]}")
    sigma = torch.full((b,), SIGMA, device=images.device)
    smooth = blur.gaussian_blur(images.transpose(0, 1).contiguous(), sigma, 2 * math.ceil(4 * SIGMA) + 1).transpose(0, 1)
    shift = uniform(b, generator, -0.5, 0.5, n, 2) * 2 / canvas  # grid_sample's unit is half of the canvas
    cos, sin = radians.cos() * side / canvas, radians.sin() * side / canvas
    # Rows for x and y of where a pixel was; y points downwards.
    was = torch.stack([torch.stack([cos, -sin, shift[..., 0]], dim=2), torch.stack([sin, cos, shift[..., 1]], dim=2)], dim=2)
    grid = F.affine_grid(was.flatten(0, 1), [b * n, images.shape[1], side, side], align_corners=False)
    # The n turns of an image are one tall picture of it.
    turned = F.grid_sample(smooth, grid.view(b, n * side, side, 2), align_corners=False)
    turned = turned + NOISE * normal(b, generator, *turned.shape[1:])
    return turned.unflatten(2, (n, side)).transpose(1, 2)
