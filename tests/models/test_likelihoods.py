"""Likelihoods of decoders against torch's distributions."""

import math

import pytest
import torch

from selfsup.models.likelihoods import LEAST_SIGMA, Bernoulli, Gaussian, check_shares, make_likelihood
from selfsup.models.normalize import Normalize


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3, 3)])
def test_bernoulli(shape: tuple[int, ...]) -> None:
    x, out = (torch.rand(shape) < 0.3).double(), 4 * torch.randn(shape, dtype=torch.float64)
    expected = torch.distributions.Bernoulli(logits=out).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(Bernoulli().log_prob(x, out), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(Bernoulli().mean(out), torch.sigmoid(out))
    far = torch.full(shape, 500.0)
    torch.testing.assert_close(Bernoulli().log_prob(torch.zeros(shape), far), torch.full((4,), -500.0 * math.prod(shape[1:])))


def test_gaussian_of_images_has_its_constants() -> None:
    x, out = torch.rand(2, 4, 2, 3, 3, dtype=torch.float64).unbind()
    fixed = make_likelihood("gaussian", image_size=3, sigma=0.2)
    expected = torch.distributions.Normal(out, 0.2).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(fixed.log_prob(x, out), expected, rtol=1e-9, atol=1e-9)
    assert not list(fixed.parameters())
    learned = make_likelihood("gaussian", image_size=3)
    assert isinstance(learned, Gaussian)
    assert float(learned.sigma().detach()) == pytest.approx(0.1)
    assert [p.shape for p in learned.parameters()] == [()]
    with torch.no_grad():
        learned.log_sigma.fill_(-50.0)
    assert float(learned.sigma().detach()) == pytest.approx(LEAST_SIGMA)
    torch.testing.assert_close(learned.mean(torch.tensor([[[[-0.5, 0.5, 1.5]]]])), torch.tensor([[[[0.0, 0.5, 1.0]]]]))


def test_gaussian_of_vectors_is_a_density_in_the_units_of_the_data() -> None:
    mean, std = torch.tensor([3.0, -1e4, 0.0]), torch.tensor([0.1, 2e3, 1.0])
    units = Normalize(3, mean, std)
    likelihood = make_likelihood("gaussian", image_size=0, sigma=0.7, normalize=units)
    out = torch.randn(5, 3, dtype=torch.float64)
    x = mean + std * torch.randn(5, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(mean + std * out, 0.7 * std).log_prob(x).sum(dim=1)
    torch.testing.assert_close(likelihood.log_prob(x, out), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(likelihood.mean(out), mean + std * out)
    assert not likelihood.state_dict()  # the statistics are the encoder's to save
    units.double().mean.add_(1.0)
    torch.testing.assert_close(likelihood.mean(out), mean + 1 + std * out)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_samples_of_an_item_are_rows_of_their_own(kind: str) -> None:
    likelihood = make_likelihood(kind, image_size=3)
    x, out = torch.rand(4, 2, 3, 3), torch.randn(6, 4, 2, 3, 3)
    expected = torch.stack([likelihood.log_prob(x, o) for o in out])
    torch.testing.assert_close(likelihood.log_prob(x, out), expected)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"bernoulli likelihood has no sigma, got 0\.5"):
        make_likelihood("bernoulli", image_size=8, sigma=0.5)
    with pytest.raises(ValueError, match=r"sigma must be positive and finite, got 0\.0"):
        make_likelihood("gaussian", image_size=8, sigma=0.0)
    with pytest.raises((ValueError, TypeError), match="poisson"):
        make_likelihood("poisson", image_size=8)
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got -1 to 2; choose likelihood gaussian"):
        check_shares(torch.tensor([[-1.0, 2.0]]))


def test_rows_of_tables_against_distributions_of_their_columns() -> None:
    """A number, and a category of two levels, "other" and "missing"; two samples of each of three rows."""
    nan, blocks = torch.nan, ((1, 5),)
    units = Normalize(5, [3.0] + [0.0] * 4, [10.0] + [1.0] * 4).double()
    likelihood = make_likelihood("gaussian", image_size=0, sigma=0.7, normalize=units, blocks=blocks)
    x = torch.tensor([[5.0, 0, 1, 0, 0], [nan, 1, 0, 0, 0], [-4.0, 0, 0, 0, 1]], dtype=torch.float64)
    out = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    number = torch.distributions.Normal(3.0 + 10.0 * out[..., 0], 7.0).log_prob(x[:, 0].nan_to_num())
    category = torch.distributions.Categorical(logits=out[..., 1:]).log_prob(torch.tensor([1, 0, 3]))
    expected = torch.stack([number[:, 0] + category[:, 0], category[:, 1], number[:, 2]], dim=1)
    found = likelihood.log_prob(x, out)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(likelihood.log_prob(x, out[0]), expected[0], rtol=1e-9, atol=1e-9)
    found.sum().backward()
    assert out.grad is not None
    assert out.grad.isfinite().all()
    mean = likelihood.mean(out[0].detach())
    torch.testing.assert_close(mean[:, 0], 3 + 10 * out[0, :, 0].detach())
    torch.testing.assert_close(mean[:, 1:].sum(dim=1), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="rows of tables need likelihood gaussian"):
        make_likelihood("bernoulli", image_size=0, blocks=blocks)
