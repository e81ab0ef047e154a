"""VICReg against equations 1 to 6 of the paper, numbers known by hand, and one toy problem it must solve."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from selfsup.method import Batch
from selfsup.methods.vicreg import VICReg, covariance, covariance_term, variance_term, vicreg
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width), nn.BatchNorm1d(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def tiny(**options: float) -> VICReg:
    torch.manual_seed(1)
    return VICReg(TinyEncoder(), image_size=8, **{"hidden_size": 12, "projection_size": 6} | options)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"first": torch.rand(batch, 3, 8, 8, generator=g), "second": 2 * torch.rand(batch, 3, 8, 8, generator=g) ** 2}


def v(z: torch.Tensor) -> float:
    """Equations 1 and 2, as they are printed."""
    n, d = z.shape
    total = 0.0
    for j in range(d):
        mean = float(z[:, j].mean())
        variance = sum((float(x) - mean) ** 2 for x in z[:, j]) / (n - 1)
        total += max(0.0, 1 - math.sqrt(variance + 1e-4))
    return total / d


def c(z: torch.Tensor) -> float:
    """Equations 3 and 4, as they are printed."""
    n, d = z.shape
    mean = z.mean(dim=0)
    matrix = sum(torch.outer(row - mean, row - mean) for row in z) / (n - 1)
    return sum(float(matrix[i, j] ** 2) for i in range(d) for j in range(d) if i != j) / d


def s(z: torch.Tensor, z_prime: torch.Tensor) -> float:
    """Equation 5, as it is printed: the sum over the D numbers."""
    return sum(float(((a - b) ** 2).sum()) for a, b in zip(z, z_prime, strict=True)) / len(z)


@pytest.mark.parametrize(("images", "spread"), [(2, 0.5), (9, 0.5), (9, 3.0)])
def test_each_term_is_its_equation(images: int, spread: float) -> None:
    z, z_prime = spread * torch.randn(2, images, 5, dtype=torch.float64) + 1
    expected = {
        (1.0, 0.0, 0.0): s(z, z_prime) / 5,  # the authors' code: a mean over the D numbers
        (0.0, 1.0, 0.0): (v(z) + v(z_prime)) / 2,  # the authors' code: a mean over the views
        (0.0, 0.0, 1.0): c(z) + c(z_prime),
        (25.0, 24.0, 2.0): 25 * s(z, z_prime) / 5 + 24 * (v(z) + v(z_prime)) / 2 + 2 * (c(z) + c(z_prime)),
    }
    for weights, value in expected.items():
        torch.testing.assert_close(vicreg(z, z_prime, *weights), torch.tensor(value, dtype=torch.float64), rtol=0.0, atol=1e-9)


def test_terms_by_numbers() -> None:
    signs = math.sqrt(3 / 4) * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # variances 1, not correlated
    torch.testing.assert_close(covariance(signs), torch.eye(2))
    assert float(variance_term(covariance(signs))) == 0
    assert float(covariance_term(covariance(signs))) == pytest.approx(0.0, abs=1e-12)
    half = covariance(signs / 2)
    torch.testing.assert_close(variance_term(half), torch.tensor(1 - math.sqrt(0.25 + 1e-4)))
    same = covariance(signs[:, :1].expand(4, 2))  # each number is the other: both covariances are 1
    torch.testing.assert_close(covariance_term(same), torch.tensor(1.0))
    torch.testing.assert_close(vicreg(signs, signs + 2, 25.0, 25.0, 1.0), torch.tensor(25.0 * 4))


def test_a_collapsed_embedding_is_pushed_apart() -> None:
    torch.manual_seed(0)
    z = (1 + 1e-6 * torch.randn(6, 4)).requires_grad_()
    loss = vicreg(z, z, 25.0, 25.0, 1.0)
    torch.testing.assert_close(loss.detach(), torch.tensor(25 * 0.99))  # gamma less the root of epsilon
    loss.backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    away = (z - z.mean(dim=0)).detach()
    assert float((z.grad * away).sum()) < 0


def test_loss_ignores_a_common_shift_order_and_side() -> None:
    z, z_prime = torch.randn(2, 8, 4, dtype=torch.float64)
    loss, order = vicreg(z, z_prime, 25.0, 25.0, 1.0), torch.randperm(8)
    for a, b in [(z_prime, z), (z[order], z_prime[order]), (z + 3, z_prime + 3), (z.flip(1), z_prime.flip(1))]:
        torch.testing.assert_close(vicreg(a, b, 25.0, 25.0, 1.0), loss)
    for a, b in [(z[order], z_prime), (3 * z, 3 * z_prime)]:  # partners and scale do count
        assert float(vicreg(a, b, 25.0, 25.0, 1.0)) != pytest.approx(float(loss))


def test_both_views_get_the_gradient_of_the_loss() -> None:
    z, z_prime = (x.requires_grad_() for x in 0.7 * torch.randn(2, 6, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: vicreg(a, b, 25.0, 24.0, 2.0), (z, z_prime))


def test_the_loss_is_that_of_both_views_each_alone() -> None:
    method, views = tiny(lambda_=3.0, mu=4.0, nu=5.0), two_views(7)
    z, z_prime = (method.expander(method.encoder(views[view])) for view in ("first", "second"))
    expected, weights = vicreg(z, z_prime, 3.0, 4.0, 5.0), list(method.parameters())
    torch.testing.assert_close(method.loss(views), expected)
    for mine, theirs in zip(torch.autograd.grad(method.loss(views), weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(mine, theirs)
    method.loss(views).backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
    assert method.encoder.net[1].weight.grad.abs().sum() > 0


def test_the_expander_is_that_of_section_4() -> None:
    method = VICReg(TinyEncoder(), image_size=8, hidden_size=12, projection_size=20)
    kinds = [type(layer).__name__ for layer in method.expander]
    assert kinds == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert [layer.out_features for layer in method.expander if isinstance(layer, nn.Linear)] == [12, 12, 20]


def test_views_are_those_of_appendix_c() -> None:
    views = VICReg(TinyEncoder(), image_size=64, smallest_crop=0.08).views
    for look in (views.first, views.second):
        assert (look.scale, look.flip, look.jitter, look.colours, look.gray) == ((0.08, 1.0), 0.5, 0.8, (0.4, 0.4, 0.2, 0.1), 0.2)
        assert (look.blur, look.sigma, look.solarize) == (0.5, (0.1, 2.0), 0.1)
    assert VICReg(TinyEncoder(), image_size=32).views.first.blur == 0


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(lambda: VICReg(TinyEncoder(), image_size=8, hidden_size=32, projection_size=8), lr=1e-2, steps=100)
    assert after > 2 * before, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    z, z_prime = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    wide = vicreg(z.float(), z_prime.float(), 25.0, 25.0, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(vicreg(z, z_prime, 25.0, 25.0, 1.0), wide, rtol=0.0, atol=0.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        vicreg(torch.randn(1, 4), torch.randn(1, 4), 25.0, 25.0, 1.0)
    with pytest.raises(ValueError, match=r"at least 0, got lambda_=25.0, mu=-1.0"):
        tiny(mu=-1.0)
