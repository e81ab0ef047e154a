"""Likelihoods against a linear-gaussian model, whose marginal and posterior are known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from selfsup.evaluation.evidence import evidence_bound, importance_nll


class LinearGaussian:
    """x = W z + b + noise of deviation s; the columns of W are orthogonal, so the posterior of z is diagonal, as q is.

    Args:
        widen: multiplies the deviation of q: 1 makes it the exact posterior.
        shift: added to its mean.
    """

    def __init__(self, widen: float = 1.0, shift: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(5, 3, generator=generator, dtype=torch.float64))[0]
        self.w = basis * torch.tensor([2.0, 0.7, 0.0], dtype=torch.float64)  # the last unit does nothing
        self.b, self.s = torch.randn(5, generator=generator, dtype=torch.float64), 0.5
        self.widen, self.shift, self.most = widen, shift, 0

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = 1 + self.w.square().sum(dim=0) / self.s**2
        mu = (x - self.b) @ self.w / self.s**2 / precision
        return mu + self.shift, (-precision.log() + 2 * math.log(self.widen)).expand_as(mu)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        self.most = max(self.most, z.shape[0] * z.shape[1])
        return torch.distributions.Normal(z @ self.w.T + self.b, self.s).log_prob(x).sum(dim=-1)

    def marginal(self) -> torch.distributions.MultivariateNormal:
        return torch.distributions.MultivariateNormal(self.b, self.w @ self.w.T + self.s**2 * torch.eye(5, dtype=torch.float64))

    def nll(self, x: Tensor) -> Tensor:
        return -self.marginal().log_prob(x)

    def gap(self) -> float:
        """KL from q to the posterior: what the bound lacks."""
        precision = 1 + self.w.square().sum(dim=0) / self.s**2
        return float((0.5 * (self.widen**2 - 1 - math.log(self.widen**2) + self.shift**2 * precision)).sum())


def items(n: int) -> Tensor:
    torch.manual_seed(1)
    return LinearGaussian().marginal().sample((n,))


def test_one_sample_of_the_exact_posterior_is_the_likelihood() -> None:
    model, x = LinearGaussian(), items(40)
    for samples in (1, 7):
        torch.testing.assert_close(importance_nll(model, x, samples=samples), model.nll(x), rtol=1e-9, atol=1e-9)


def test_many_samples_of_another_q_come_to_the_likelihood() -> None:
    model, x = LinearGaussian(widen=1.3, shift=0.2), items(200)
    few, many = (importance_nll(model, x, samples=k) for k in (1, 4000))
    assert model.gap() > 0.4
    assert float((few - model.nll(x)).mean()) == pytest.approx(model.gap(), abs=0.2)  # with one sample it is the bound
    assert float((many - model.nll(x)).abs().max()) < 0.1
    assert float((many - model.nll(x)).mean().abs()) < 0.01


def test_chunks_are_exact_and_bound_the_memory() -> None:
    model, x = LinearGaussian(widen=1.5), items(16)  # 16 items of 3 numbers: chunks draw what one large draw would
    whole, *parts = [
        importance_nll(model, x, samples=50, generator=torch.Generator().manual_seed(0), rows=rows) for rows in (10_000, 16 * 7, 16, 1)
    ]
    for part in parts:
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)
    model.most = 0
    importance_nll(model, x, samples=50, rows=100)
    assert model.most == 96


def test_weights_that_differ_by_thousands_of_nats_do_not_overflow() -> None:
    model, x = LinearGaussian(), items(4) + 1e3
    assert float((importance_nll(model, x, samples=30, rows=8) / model.nll(x) - 1).abs().max()) < 1e-9


def test_the_bound_lacks_the_divergence_from_the_posterior() -> None:
    for widen, shift in ((1.0, 0.0), (0.7, 0.3)):
        model, x = LinearGaussian(widen, shift), items(20_000)
        bound = evidence_bound(model, x.split(6000))
        assert -bound.elbo == pytest.approx(float(model.nll(x).mean()) + model.gap(), abs=0.06)
        assert -bound.elbo == pytest.approx(bound.reconstruction + float(bound.kl.sum()), abs=1e-9)
        mu, log_var = model.posterior(x)
        q, prior = torch.distributions.Normal(mu, (log_var / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        torch.testing.assert_close(bound.kl, torch.distributions.kl_divergence(q, prior).mean(dim=0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bound.variance, mu.var(dim=0, correction=0), rtol=1e-9, atol=1e-12)
        assert bound.active_units() == 2
        assert bound.active_units(threshold=0.8) == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1 sample and 1 row at a time, got 0 and 1024"):
        importance_nll(LinearGaussian(), items(2), samples=0)
    with pytest.raises(ValueError, match="at least 1 item, got none"):
        evidence_bound(LinearGaussian(), [])
