"""Colour operations on a whole batch, each image with its own factors, as torchvision defines them for float images.

Images are planes (C, B, H, W) in [0, 1], channels first of all: one channel of all images is one block of memory. Each operation
clamps to [0, 1], as torchvision's do after every step. Three channels are taken as red, green and blue. With any other number, grey is
the mean of the channels, brightness and contrast work on each image with all of its channels, and views leave out saturation, hue and
grayscale (for one channel this is what torchvision does; for others it says nothing).
"""

import torch
from jaxtyping import Float
from torch import Tensor

RED, GREEN, BLUE = 0.2989, 0.587, 0.114
"""Weights of the channels in grey, as torchvision rounds those of ITU-R 601-2."""


def gray(planes: Float[Tensor, "C B H W"]) -> Float[Tensor, "B H W"]:
    """Luma of each pixel; the mean of the channels where there are not 3."""
    if len(planes) != 3:
        return planes.mean(dim=0)
    return (planes[0] * RED).add_(planes[1], alpha=GREEN).add_(planes[2], alpha=BLUE)


def blend(
    planes: Float[Tensor, "C B H W"], factor: Float[Tensor, " B"], to_mean: Float[Tensor, " B"], to_gray: Float[Tensor, " B"]
) -> None:
    """x -> clamp(factor x + to_mean mean(gray(x)) + to_gray gray(x)), in place: for each image one of three operations.

    Brightness has `to_mean` = `to_gray` = 0, contrast has `to_mean` = 1 - factor, saturation has `to_gray` = 1 - factor. So images
    that want their operations in different orders go through the same calls.
    """
    luma = gray(planes)
    offset = to_mean * luma.mean(dim=(1, 2))
    luma.mul_(to_gray[:, None, None]).add_(offset[:, None, None])
    torch.addcmul(luma, planes, factor[:, None, None], out=planes).clamp_(0, 1)


def shift_hue(planes: Float[Tensor, "3 B H W"], shift: Float[Tensor, " B"]) -> None:
    """Turn the hue of each image by `shift` turns of the colour circle, -0.5 to 0.5, in place.

    In HSV a channel is low + chroma clamp(2 - d, 0, 1), where d is the distance of the hue from the channel's own, in sixths of a turn;
    low and low + chroma are the smallest and the largest channel. The hue's distance from red needs no case for which channel is the
    largest: it is (chroma - low - red + green + blue) / chroma for all of them, and the sign of green - blue is its side.
    """
    red, green, blue = planes
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    chroma = torch.maximum(red, green)
    chroma = torch.maximum(chroma, blue, out=chroma).sub_(low).clamp_(min=1e-12)  # grey: any hue does, but no 0 / 0
    hue = (green + blue).sub_(red).sub_(low).add_(chroma).div_(chroma).copysign_(green - blue)
    minus_own = torch.tensor([3.0, 1.0, -1.0], device=planes.device)[:, None]  # 0, 2 and 4 sixths, and half a turn for the next line
    turn = (6 * shift + minus_own).remainder_(6).sub_(3)  # (3, B) in [-3, 3), as `hue` is
    distance = torch.add(hue, turn[:, :, None, None], out=planes).abs_()
    # That is the distance or, beyond 3, its complement to 6: either way 2 - d, where it lies in [0, 1], is |distance - 3| - 1.
    torch.addcmul(low.sub_(chroma), distance.sub_(3).abs_().clamp_(1, 2), chroma, out=planes)


def solarize(planes: Float[Tensor, "C B H W"]) -> Float[Tensor, "C B H W"]:
    """Invert the values that are at least 0.5."""
    return torch.minimum(planes, 1 - planes)
