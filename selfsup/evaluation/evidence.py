"""How likely a model with a gaussian code finds items: the evidence lower bound in its parts, and a tighter estimate by importance.

Axes: B items in a batch, N items in all, K samples of each, Z length of a code.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

ROWS = 1024
"""Codes that are decoded at a time; changes memory and speed, and by rounding the figures."""


@runtime_checkable
class GaussianCode(Protocol):
    """A model p(x|z) with z ~ N(0, I), and a diagonal gaussian q(z|x); `selfsup.methods.vae.VAE` is one."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ...) items -> mean and log-variance of q(z|x), (B, Z) each."""
        ...

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, ...) items and (K, B, Z) codes -> log p(x|z) in nats, (K, B)."""
        ...


@dataclass(frozen=True)
class Bound:
    """The evidence lower bound of items, in nats an item; the bound of log p(x) is -(reconstruction + sum of kl).

    Attributes:
        reconstruction: mean of -log p(x|z), with one z for each item.
        kl: (Z,) mean divergence of q(z|x) from N(0, 1) of each unit.
        variance: (Z,) variance of the mean of q over the items.
        negative_bound: (N,) of each item.
    """

    reconstruction: float
    kl: Tensor
    variance: Tensor
    negative_bound: Tensor

    @property
    def elbo(self) -> float:
        """Mean over the items."""
        return -float(self.negative_bound.double().mean())

    def active_units(self, threshold: float = 0.01) -> int:
        """Units whose mean moves with the item: variance above the threshold (Burda, Grosse and Salakhutdinov 2016, section 5.2)."""
        return int((self.variance > threshold).sum())


@torch.no_grad()
def evidence_bound(model: GaussianCode, batches: Iterable[Tensor], *, seed: int = 0) -> Bound:
    """The bound of all items (Kingma and Welling 2014, equation 10), its divergence in closed form.

    Args:
        model: in evaluation mode.
        batches: (B, ...) items on the model's device.
        seed: of z.

    Raises:
        ValueError: no items.
    """
    reconstruction, kl, means = [], [], []
    generator: torch.Generator | None = None
    for x in batches:
        generator = generator or torch.Generator(x.device).manual_seed(seed)
        mu, log_var = model.posterior(x)
        z, _ = _draw(mu, log_var, 1, generator)
        reconstruction.append(-model.log_likelihood(x, z)[0].double())
        kl.append(0.5 * (mu.square() + log_var.exp() - 1 - log_var).double())
        means.append(mu.double())
    if not means:
        raise ValueError("a bound needs at least 1 item, got none")
    cost, divergence, mu = torch.cat(reconstruction), torch.cat(kl), torch.cat(means)
    return Bound(float(cost.mean()), divergence.mean(dim=0), mu.var(dim=0, correction=0), cost + divergence.sum(dim=1))


@torch.no_grad()
def importance_nll(
    model: GaussianCode, x: Float[Tensor, "B *rest"], *, samples: int = 5000, generator: torch.Generator | None = None, rows: int = ROWS
) -> Float[Tensor, " B"]:
    """-log p(x) of each item, estimated as -log mean_k p(x, z_k) / q(z_k|x) with z_k ~ q(z|x), in nats.

    Burda, Grosse and Salakhutdinov, ICLR 2016, equation 8 (https://arxiv.org/abs/1509.00519); Rezende, Mohamed and Wierstra 2014, appendix
    E. On average too large by what the bound with that many samples lacks, and never too small but by chance.

    Args:
        model: in evaluation mode.
        x: items on the model's device; a hundred at a time keep the decoder busy.
        samples: K.
        generator: of the codes; torch's global one where none is given.
        rows: codes decoded at a time, 1 or more. Memory grows with it and with B, not with K.

    Raises:
        ValueError: no samples, or no rows.
    """
    if samples < 1 or rows < 1:
        raise ValueError(f"importance sampling needs at least 1 sample and 1 row at a time, got {samples} and {rows}")
    mu, log_var = model.posterior(x)
    at_a_time = max(1, rows // len(x))
    total = torch.full(mu.shape[:1], -math.inf, dtype=torch.float64, device=mu.device)
    for first in range(0, samples, at_a_time):
        z, noise = _draw(mu, log_var, min(at_a_time, samples - first), generator)
        # log p(z) - log q(z|x): what 2 pi adds to both falls out.
        weights = model.log_likelihood(x, z) + 0.5 * (noise.square() + log_var - z.square()).sum(dim=2)
        total = torch.logaddexp(total, weights.double().logsumexp(dim=0))
    return math.log(samples) - total


def _draw(mu: Tensor, log_var: Tensor, k: int, generator: torch.Generator | None) -> tuple[Float[Tensor, "K B Z"], Float[Tensor, "K B Z"]]:
    """k codes of each item, and the noise that they were made of."""
    noise = torch.randn(k, *mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + (0.5 * log_var).exp() * noise, noise
