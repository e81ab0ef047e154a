"""Barlow Twins against equations 1 and 2 of the paper, numbers known by hand, and one toy problem it must solve."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from selfsup.method import Batch
from selfsup.methods.barlow_twins import BarlowTwins, cross_correlation, redundancy
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width), nn.BatchNorm1d(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def barlow_twins(**options: float) -> BarlowTwins:
    torch.manual_seed(1)
    return BarlowTwins(TinyEncoder(), image_size=8, **{"hidden_size": 12, "projection_size": 6} | options)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"first": torch.rand(batch, 3, 8, 8, generator=g), "second": 2 * torch.rand(batch, 3, 8, 8, generator=g) ** 2}


def equation_2(z_a: torch.Tensor, z_b: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The paper's formula as it is printed, with what batch normalisation adds to each variance."""
    z_a, z_b = z_a - z_a.mean(dim=0), z_b - z_b.mean(dim=0)
    n, d = z_a.shape
    c = torch.zeros(d, d, dtype=z_a.dtype)
    for i in range(d):
        for j in range(d):
            lengths = math.sqrt(float((z_a[:, i] ** 2).sum()) + n * epsilon) * math.sqrt(float((z_b[:, j] ** 2).sum()) + n * epsilon)
            c[i, j] = float((z_a[:, i] * z_b[:, j]).sum()) / lengths
    return c


def equation_1(c: torch.Tensor, lambda_: float) -> float:
    d = len(c)
    return sum(float((1 - c[i, i]) ** 2) + lambda_ * sum(float(c[i, j] ** 2) for j in range(d) if j != i) for i in range(d))


@pytest.mark.parametrize(("images", "lambda_"), [(2, 0.005), (9, 0.005), (9, 1.0)])
def test_loss_is_equations_1_and_2(images: int, lambda_: float) -> None:
    z_a, z_b = 3 * torch.randn(2, images, 5, dtype=torch.float64) + 1
    exact = {"rtol": 0.0, "atol": 1e-9}
    torch.testing.assert_close(cross_correlation(z_a, z_b), equation_2(z_a, z_b, 1e-5), **exact)
    expected = torch.tensor(equation_1(equation_2(z_a, z_b, 1e-5), lambda_), dtype=torch.float64)
    torch.testing.assert_close(redundancy(z_a, z_b, lambda_), expected, **exact)
    big = 1e3 * z_a, 1e3 * z_b  # where epsilon is nothing, as in the paper
    torch.testing.assert_close(redundancy(*big, lambda_), torch.tensor(equation_1(equation_2(*big, 0.0), lambda_), dtype=torch.float64))


def test_loss_by_numbers() -> None:
    signs = 1e3 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # two columns that are not correlated
    same = signs[:, :1].expand(4, 2)
    for z_a, z_b, expected in [
        (signs, signs, 0.0),
        (signs, -signs, 2 * (1 + 1) ** 2),  # each twin is the opposite
        (signs, signs.flip(1), 2 * 1 + 0.25 * 2),  # each number is its neighbour's twin
        (same, same, 0.25 * 2),  # invariant, and redundant
    ]:
        torch.testing.assert_close(redundancy(z_a, z_b, 0.25), torch.tensor(float(expected)))


def test_a_collapsed_embedding_costs_1_a_number_and_is_finite() -> None:
    z = torch.ones(6, 4, requires_grad=True)
    loss = redundancy(z, z, 5e-3)
    torch.testing.assert_close(loss.detach(), torch.tensor(4.0))
    loss.backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_loss_ignores_scale_shift_and_order() -> None:
    z_a, z_b = 100 * torch.randn(2, 8, 4, dtype=torch.float64)
    loss, order = redundancy(z_a, z_b, 0.1), torch.randperm(8)
    for a, b in [(z_b, z_a), (z_a[order], z_b[order]), (7 * z_a + 3, z_b - 5), (z_a.flip(1), z_b.flip(1))]:
        torch.testing.assert_close(redundancy(a, b, 0.1), loss)
    assert float(redundancy(z_a[order], z_b, 0.1)) != pytest.approx(float(loss))


def test_both_views_get_the_gradient_of_the_loss() -> None:
    z_a, z_b = (z.requires_grad_() for z in torch.randn(2, 6, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: redundancy(a, b, 0.1), (z_a, z_b))


def test_the_loss_is_that_of_both_views_each_alone() -> None:
    method, views = barlow_twins(lambda_=0.3), two_views(7)
    z_a, z_b = (method.projector(method.encoder(views[view])) for view in ("first", "second"))
    torch.testing.assert_close(method.loss(views), redundancy(z_a, z_b, 0.3))
    method.loss(views).backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
    assert method.encoder.net[1].weight.grad.abs().sum() > 0
    for view, others in (("first", "second"), ("second", "first")):  # and both teach
        changed = {view: two_views(7, 5)[view], others: views[others]}
        assert float(method.loss(changed).detach()) != pytest.approx(float(method.loss(views).detach()), rel=1e-3)


def test_the_projector_is_that_of_section_2() -> None:
    method = BarlowTwins(TinyEncoder(), image_size=8, hidden_size=12, projection_size=20)
    kinds = [type(layer).__name__ for layer in method.projector]
    assert kinds == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert [layer.out_features for layer in method.projector if isinstance(layer, nn.Linear)] == [12, 12, 20]


def test_views_are_those_of_byol() -> None:
    views = BarlowTwins(TinyEncoder(), image_size=64, smallest_crop=0.08).views
    for look, blur, solarize in [(views.first, 1.0, 0.0), (views.second, 0.1, 0.2)]:
        assert (look.scale, look.flip, look.jitter, look.colours, look.gray) == ((0.08, 1.0), 0.5, 0.8, (0.4, 0.4, 0.2, 0.1), 0.2)
        assert (look.blur, look.sigma, look.solarize) == (blur, (0.1, 2.0), solarize)
    assert BarlowTwins(TinyEncoder(), image_size=32).views.first.blur == 0


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(
        lambda: BarlowTwins(TinyEncoder(), image_size=8, hidden_size=32, projection_size=32), lr=1e-2, steps=100
    )
    assert after > 2 * before + 0.1, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_bfloat16_embeddings_are_correlated_in_float32() -> None:
    z_a, z_b = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    wide = redundancy(z_a.float(), z_b.float(), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(redundancy(z_a, z_b, 0.1), wide, rtol=0.0, atol=0.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        redundancy(torch.randn(1, 4), torch.randn(1, 4), 0.1)
    with pytest.raises(ValueError, match=r"lambda_ must be at least 0, got -1.0"):
        barlow_twins(lambda_=-1.0)
