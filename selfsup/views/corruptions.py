"""Corruptions for denoising autoencoders: gaussian noise, masking noise, salt and pepper.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, JMLR 2010 (section 3.5), https://jmlr.org/papers/v11/vincent10a.html

Each takes float inputs, images (B, C, H, W) or vectors (B, D), in which NaN is a missing value, and returns the corrupted inputs and a
boolean mask of the same shape: True where a value was corrupted, that is hidden. Every row draws its own; the inputs are left as they are.
"""

import torch
from jaxtyping import Bool, Float, Int
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
    x: Float[Tensor, "B *rest"],
    generator: torch.Generator,
    fraction: float,
    *,
    whole_pixels: bool = False,
    columns: Int[Tensor, " D"] | None = None,
) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
    """Set a fraction of each row's values to 0.

    Args:
        x: inputs.
        generator: source of the random numbers.
        fraction: how much of each row to hide, 0 to 1: exactly round(fraction n) of its n values (the paper's nu).
        whole_pixels: for images, hide all channels of a pixel together; `fraction` then counts pixels. Otherwise every channel of every
            pixel is a value of its own, and a neighbour in another channel gives much of it away.
        columns: for rows of a table, the column 0, ..., K - 1 that each place belongs to: the places of a column are hidden together, and
            `fraction` counts columns.
    Raises:
        ValueError: fraction is not in [0, 1], or whole pixels are asked of what is no image.
    """
    hidden = _exactly(x, generator, fraction, whole_pixels, columns)
    return x.masked_fill(hidden, 0), hidden


def salt_and_pepper(
    x: Float[Tensor, "B *rest"],
    generator: torch.Generator,
    fraction: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    whole_pixels: bool = False,
    columns: Int[Tensor, " D"] | None = None,
) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
    """Set a fraction of each row's values to `low` or `high`, by a fair coin for each value.

    `fraction`, `whole_pixels` and `columns` are those of `masking`; whole pixels become black or white in all channels. The mask is True
    where a value was replaced, even when it was `low` or `high` before.

    Raises:
        ValueError: fraction is not in [0, 1], or whole pixels are asked of what is no image.
    """
    hidden = _exactly(x, generator, fraction, whole_pixels, columns)
    coin = _spread(uniform(len(x), generator, 0.0, 1.0, *_units(x, whole_pixels, columns)) < 0.5, x, columns)
    extreme = torch.where(coin, low, high).to(x.dtype)
    return torch.where(hidden, extreme, x), hidden


def _units(x: Tensor, whole_pixels: bool, columns: Tensor | None) -> tuple[int, ...]:
    """Shape of what one random number decides about, without the first axis."""
    if columns is not None:
        if columns.shape != x.shape[1:]:
            raise ValueError(f"columns must say of each of the {x.shape[1:].numel()} places its column, got {tuple(columns.shape)}")
        return (int(columns.max()) + 1,)
    if not whole_pixels:
        return tuple(x.shape[1:])
    if x.ndim != 4:
        raise ValueError(f"whole_pixels needs images (B, C, H, W), got inputs of shape {tuple(x.shape)}; leave it out for vectors")
    return (1, *x.shape[2:])


def _spread(units: Tensor, x: Tensor, columns: Tensor | None) -> Tensor:
    """What was decided about units -> about every value of x."""
    return units.expand_as(x) if columns is None else units[:, columns]


def _exactly(x: Tensor, generator: torch.Generator, fraction: float, whole_pixels: bool, columns: Tensor | None) -> Tensor:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    units = _units(x, whole_pixels, columns)
    score = uniform(len(x), generator, 0.0, 1.0, *units).flatten(1)
    count = round(fraction * score.shape[1])
    hidden = torch.zeros_like(score, dtype=torch.bool)
    hidden.scatter_(1, score.topk(count, dim=1).indices, True)  # the highest scores: exactly `count`, whatever the ties
    return _spread(hidden.view(len(x), *units), x, columns)
