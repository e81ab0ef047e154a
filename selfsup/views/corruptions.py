"""Corruptions for denoising autoencoders: gaussian noise, masking noise, salt and pepper.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, JMLR 2010 (section 3.5), https://jmlr.org/papers/v11/vincent10a.html

Each takes float inputs, images (B, C, H, W) or vectors (B, D), and returns the corrupted inputs and a boolean mask of the same shape:
True where a value was corrupted, that is hidden. Every row draws its own; the inputs are left as they are.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from selfsup.views.sampling import normal, uniform


def gaussian(
    x: Float[Tensor, "B *rest"], generator: torch.Generator, sigma: float
) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
    """Add noise of standard deviation `sigma`, in the units of x; nothing is clamped, and the mask is True everywhere.

    At `sigma` 0 x comes back with nothing hidden.

    Raises:
        ValueError: sigma is negative.
    """
    if sigma < 0:
        raise ValueError(f"sigma must be at least 0, in the units of the inputs, got {sigma}")
    noise = normal(len(x), generator, *x.shape[1:])
    return x + sigma * noise, torch.full_like(x, sigma > 0, dtype=torch.bool)


def masking(
    x: Float[Tensor, "B *rest"], generator: torch.Generator, fraction: float, *, whole_pixels: bool = False
) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
    """Set a fraction of each row's values to 0.

    Args:
        x: inputs.
        generator: source of the random numbers.
        fraction: how much of each row to hide, 0 to 1: exactly round(fraction n) of its n values (the paper's nu).
        whole_pixels: for images, hide all channels of a pixel together; `fraction` then counts pixels. Otherwise every channel of every
            pixel is a value of its own, and a neighbour in another channel gives much of it away.
    Raises:
        ValueError: fraction is not in [0, 1], or whole pixels are asked of what is no image.
    """
    hidden = _exactly(x, generator, fraction, whole_pixels)
    return x.masked_fill(hidden, 0), hidden


def salt_and_pepper(
    x: Float[Tensor, "B *rest"],
    generator: torch.Generator,
    fraction: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    whole_pixels: bool = False,
) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
    """Set a fraction of each row's values to `low` or `high`, by a fair coin for each value.

    `fraction` and `whole_pixels` are those of `masking`; whole pixels become black or white in all channels. The mask is True where a value
    was replaced, even when it was `low` or `high` before.

    Raises:
        ValueError: fraction is not in [0, 1], or whole pixels are asked of what is no image.
    """
    hidden = _exactly(x, generator, fraction, whole_pixels)
    coin = uniform(len(x), generator, 0.0, 1.0, *_units(x, whole_pixels)) < 0.5
    extreme = torch.where(coin, low, high).to(x.dtype).expand_as(x)
    return torch.where(hidden, extreme, x), hidden


def _units(x: Tensor, whole_pixels: bool) -> tuple[int, ...]:
    """Shape of what one random number decides about, without the first axis."""
    if not whole_pixels:
        return tuple(x.shape[1:])
    if x.ndim != 4:
        raise ValueError(f"whole_pixels needs images (B, C, H, W), got inputs of shape {tuple(x.shape)}; leave it out for vectors")
    return (1, *x.shape[2:])


def _exactly(x: Tensor, generator: torch.Generator, fraction: float, whole_pixels: bool) -> Tensor:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    units = _units(x, whole_pixels)
    score = uniform(len(x), generator, 0.0, 1.0, *units).flatten(1)
    count = round(fraction * score.shape[1])
    hidden = torch.zeros_like(score, dtype=torch.bool)
    hidden.scatter_(1, score.topk(count, dim=1).indices, True)  # the highest scores: exactly `count`, whatever the ties
    return hidden.view(len(x), *units).expand_as(x)
