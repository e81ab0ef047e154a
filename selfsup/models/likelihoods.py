"""What a decoder's outputs say about values: a distribution of each of them, with its constants, so that bounds are in nats.

Axes: B items, K samples of each; outputs are (*K, B, ...) where x is (B, ...).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.models.normalize import Normalize
from selfsup.models.table import filled, known_values, row_error

Kind = Literal["bernoulli", "gaussian"]

LEAST_SIGMA = 1e-3
"""A learned deviation stays above it: pixels that never change would otherwise have an infinite density."""


class Bernoulli(nn.Module):
    """Every value is 0 or 1; outputs are logits. Values between count as that share of a one (cross-entropy)."""

    def log_prob(self, x: Float[Tensor, "B *rest"], out: Float[Tensor, "..."]) -> Float[Tensor, "*K B"]:
        """log p(x | out) of each item, summed over its values, in nats; at most 0."""
        return _per_item(out * x - F.softplus(out), x)

    def mean(self, out: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Chance of a one, 0 to 1."""
        return out.sigmoid()


class Gaussian(nn.Module):
    """Every value is normal around the output, all with one deviation sigma.

    Outputs and sigma are in standard deviations of the data where `normalize` has them, so that no column counts for its unit; log_prob is
    the density in the units of the data all the same. Of rows of tables, a category has the distribution whose logits are the outputs of
    its block, and a missing value counts nothing.

    Args:
        sigma: standard deviation, positive; None learns it.
        start: where a learned sigma begins.
        normalize: the mean and deviation of each column of vectors; None for images, whose unit is that of [0, 1].
        blocks: of rows of a table, the places (start, stop) of every category; see `selfsup.models.table`.

    Raises:
        ValueError: sigma is not positive.
    """

    log_sigma: Tensor

    def __init__(
        self, sigma: float | None, start: float, normalize: Normalize | None = None, blocks: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__()
        if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma must be positive and finite, got {sigma}; leave it out to learn it")
        if sigma is None:
            self.log_sigma = nn.Parameter(torch.tensor(math.log(start - LEAST_SIGMA)))
        self.fixed, self.blocks = sigma, tuple(blocks)
        # In a tuple, as the layer is the encoder's: its statistics are not the decoder's to save.
        self.units = (normalize,) if normalize is not None else ()

    def sigma(self) -> Tensor:
        """Standard deviation, 0-dim."""
        return torch.tensor(self.fixed, dtype=torch.float64) if self.fixed is not None else self.log_sigma.exp() + LEAST_SIGMA

    def log_prob(self, x: Float[Tensor, "B *rest"], out: Float[Tensor, "..."]) -> Float[Tensor, "*K B"]:
        """log p(x | out) of each item, summed over its values, in nats: a density, so it may be above 0."""
        sigma = self.sigma().to(device=x.device, dtype=x.dtype)
        constant = sigma.log() + 0.5 * math.log(2 * math.pi)
        known = known_values(x, self.blocks) if x.ndim == 2 else None
        for units in self.units:
            x = units(x)
            constant = constant + units.std.log()
        if known is None:
            return _per_item(-0.5 * ((x - out) / sigma) ** 2 - constant, x)
        truth, there = (t.expand(out.shape).flatten(0, -2) for t in (x, known))
        error = row_error(out.flatten(0, -2), truth, there, self.blocks).view(out.shape)
        density = (-0.5 * error / sigma**2 - constant) * known
        for start, stop in self.blocks:
            density[..., start:stop] = -error[..., start:stop]
        return _per_item(density, x)

    def mean(self, out: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Expected values: of images, kept within [0, 1]; of vectors, in the units of the data, categories as probabilities."""
        for units in self.units:
            out = out * units.std + units.mean
        if self.blocks:
            return filled(out, self.blocks)
        return out.clamp(0, 1) if out.ndim == 4 else out


def make_likelihood(
    kind: Kind,
    *,
    image_size: int,
    sigma: float | None = None,
    normalize: nn.Module | None = None,
    blocks: Sequence[tuple[int, int]] = (),
) -> Bernoulli | Gaussian:
    """The distribution of that name for images, or for vectors when image_size is 0.

    Args:
        sigma: of "gaussian", see there; a learned one begins at 0.1 for images, 1 for vectors.
        normalize: the encoder's first layer, if it has one; for vectors.
        blocks: of rows of a table, the places of its categories, for "gaussian".

    Raises:
        ValueError: no such name, a sigma where there is none, or a table with "bernoulli".
    """
    if kind == "bernoulli":
        if blocks:
            raise ValueError(
                "rows of tables need likelihood gaussian, got bernoulli; their categories have a distribution of their own anyway"
            )
        if sigma is not None:
            raise ValueError(f"a bernoulli likelihood has no sigma, got {sigma}; choose likelihood gaussian, or leave sigma out")
        return Bernoulli()
    if kind != "gaussian":
        raise ValueError(f'likelihood must be "bernoulli" or "gaussian", got "{kind}"')
    if image_size:
        return Gaussian(sigma, 0.1)
    return Gaussian(sigma, 1.0, normalize if isinstance(normalize, Normalize) else None, blocks)


def check_shares(x: Float[Tensor, "B *rest"]) -> None:
    """Raise ValueError where vectors hold values that no bernoulli likelihood can have; images are always in [0, 1]."""
    if x.ndim == 2 and not bool((x.amin() >= 0) & (x.amax() <= 1)):
        got = f"{float(x.amin()):.4g} to {float(x.amax()):.4g}"
        raise ValueError(f"a bernoulli likelihood needs values in [0, 1], got {got}; choose likelihood gaussian")


def _per_item(values: Tensor, x: Tensor) -> Tensor:
    """Sum over all axes of an item; the axes before are those of samples and of the batch."""
    return values.flatten(values.ndim - x.ndim + 1).sum(dim=-1)
