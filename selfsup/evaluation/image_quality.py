"""How close an image is to the one that it should be, and how sharp it is. Images are in [0, 1].

Axes: B images, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(
    image: Float[Tensor, "B C H W"], truth: Float[Tensor, "B C H W"], where: Bool[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio of each image, in dB: -10 log10 of the mean squared error; infinite where both are the same.

    Args:
        image, truth: compared.
        where: True for the pixels that count; None for all.

    Raises:
        ValueError: other shapes, or an image of which no pixel counts.
    """
    _check(image, truth)
    error = (image.double() - truth.double()).square().mean(dim=1, keepdim=True)
    if where is None:
        mean = error.mean(dim=(1, 2, 3))
    else:
        count = where.sum(dim=(1, 2, 3))
        if not bool(count.all()):
            raise ValueError("psnr needs at least one pixel that counts in every image, got an image with none")
        mean = (error * where).sum(dim=(1, 2, 3)) / count
    return -10 * mean.log10()


def ssim(image: Float[Tensor, "B C H W"], truth: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Structural similarity of each image, at most 1, the mean over its channels and over all places where the window fits.

    Wang, Bovik, Sheikh and Simoncelli, 2004, equation 13, with their gaussian window of 11 x 11 and sigma 1.5, K1 = 0.01 and K2 = 0.03.
    https://doi.org/10.1109/TIP.2003.819861

    Raises:
        ValueError: other shapes, or images smaller than the window.
    """
    _check(image, truth)
    if min(image.shape[2:]) < WINDOW:
        raise ValueError(f"ssim needs images of at least {WINDOW} x {WINDOW} pixels, got {tuple(image.shape[2:])}; psnr takes any")
    values = []
    for x, y in zip(image.unbind(1), truth.unbind(1), strict=True):  # channel by channel: the moments of a large photograph are large
        x, y = x.double(), y.double()  # a variance as a difference of squares loses half of its digits
        mx, my, xx, yy, xy = _blurred(torch.stack([x, y, x * x, y * y, x * y], dim=1)).unbind(1)
        vx, vy, covariance = xx - mx * mx, yy - my * my, xy - mx * my
        alike = (2 * mx * my + K1**2) * (2 * covariance + K2**2) / ((mx * mx + my * my + K1**2) * (vx + vy + K2**2))
        values.append(alike.mean(dim=(1, 2)))
    return torch.stack(values).mean(dim=0)


def gradient_energy(image: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """How sharp an image is: the mean squared difference of neighbours in a column plus that of neighbours in a row; 0 for one colour.

    Raises:
        ValueError: images of a single row or column.
    """
    if min(image.shape[2:]) < 2:
        raise ValueError(f"gradient_energy needs at least 2 x 2 pixels, got {tuple(image.shape[2:])}")
    x = image.double()
    return x.diff(dim=2).square().mean(dim=(1, 2, 3)) + x.diff(dim=3).square().mean(dim=(1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    """The weighted mean in the window around each pixel that has one."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weight = torch.exp(-(place**2) / (2 * SIGMA**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, WINDOW)
    return F.conv2d(F.conv2d(x, weight, groups=x.shape[1]), weight.transpose(2, 3), groups=x.shape[1])


def _check(image: Tensor, truth: Tensor) -> None:
    if image.shape != truth.shape or image.ndim != 4:
        raise ValueError(f"expected two times (B, C, H, W) of the same size, got {tuple(image.shape)} and {tuple(truth.shape)}")
