"""CIE Lab, in which L is how light a pixel is and a, b are its colour: from sRGB and back, a whole batch at a time.

White is D65 for the observer of 2 degrees, (0.95047, 1, 1.08883), and the primaries are those of sRGB (IEC 61966-2-1). L is 0 to 100;
a is -86.2 to 98.2 (green to magenta) and b -107.9 to 94.5 (blue to yellow), of the colours that sRGB has.

Axes: B images, H height, W width.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.losses import full_precision

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""X, Y and Z of linear red, green and blue."""
WHITE = (0.95047, 1.0, 1.08883)
BEND, SLOPE = 0.008856, 7.787
"""Where the cube root of Lab becomes a line, and that line's slope: (6 / 29)^3 and (29 / 6)^2 / 3, rounded as everybody has them."""


@full_precision
def rgb_to_lab(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """sRGB in [0, 1] -> L, a, b; float32, or float64 where x is."""
    x, y, z = (_root(v) for v in _mixed(_linear(x), TO_XYZ, scale=WHITE))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


@full_precision
def lab_to_rgb(lab: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """L, a, b -> sRGB, clamped to [0, 1] where sRGB has no such colour."""
    light, a, b = lab.unbind(1)
    y = (light + 16) / 116
    xyz = torch.stack([_cube(v) * white for v, white in zip((y + a / 500, y, (y - b / 200).clamp(min=0)), WHITE, strict=True)], dim=1)
    return _gamma(torch.stack(_mixed(xyz, _from_xyz()), dim=1)).clamp(0, 1)


@full_precision
def gray(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """sRGB in [0, 1] without colour, three equal channels of the same L; an image that is gray already stays as it is."""
    (luminance,) = _mixed(_linear(x), TO_XYZ[1:2])
    return _gamma(luminance)[:, None].expand(-1, 3, -1, -1)


def _mixed(
    x: Float[Tensor, "B 3 H W"], rows: tuple[tuple[float, ...], ...], scale: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> list[Float[Tensor, "B H W"]]:
    """A 3 x 3 matrix times each pixel; planes are added one by one, as a product of matrices would copy them together first."""
    return [sum(x[:, i] * (w / white) for i, w in enumerate(row)) for row, white in zip(rows, scale, strict=False)]  # type: ignore[misc]


def _linear(x: Tensor) -> Tensor:
    """What sRGB's values mean in light."""
    return torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)


def _gamma(x: Tensor) -> Tensor:
    return torch.where(x > 0.0031308, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * x)


def _root(t: Tensor) -> Tensor:
    return torch.where(t > BEND, t.clamp(min=BEND) ** (1 / 3), SLOPE * t + 16 / 116)


def _cube(f: Tensor) -> Tensor:
    return torch.where(f > BEND ** (1 / 3), f**3, (f - 16 / 116) / SLOPE)


@functools.cache
def _from_xyz() -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in torch.tensor(TO_XYZ, dtype=torch.float64).inverse().tolist())
