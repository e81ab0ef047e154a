"""Label-free measures: formulas in loops, numbers known by hand, invariances."""

import math

import numpy as np
import pytest
import torch

from selfsup.evaluation.measures import alignment, alpha_req, deviation, lidar, match, rankme, spearman, uniformity


def test_rankme_is_the_paper_s_formula() -> None:
    torch.manual_seed(0)
    for shape in ((20, 6), (6, 20)):
        z = torch.randn(*shape) * torch.rand(shape[1])
        sigma = torch.linalg.svdvals(z.double())
        p = [float(s / sigma.sum()) + 1e-7 for s in sigma]
        assert rankme(z) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-4)


def test_rankme_counts_directions() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8.0, rel=1e-4)
    assert rankme(torch.cat([torch.eye(3), torch.zeros(3, 5)], dim=1).repeat(4, 1)) == pytest.approx(3.0, rel=1e-4)
    assert rankme(torch.ones(20, 8)) == pytest.approx(1.0, abs=1e-3)
    assert rankme(torch.zeros(20, 8)) == pytest.approx(1.0, abs=1e-3)
    assert math.isnan(rankme(torch.tensor([[1.0, math.nan]])))


def test_rankme_ignores_rotation_and_unit() -> None:
    torch.manual_seed(1)
    z, rotation = torch.randn(30, 7), torch.linalg.qr(torch.randn(7, 7)).Q
    assert rankme(3 * z @ rotation) == pytest.approx(rankme(z), rel=1e-4)


def test_deviation_is_one_on_the_sphere_and_zero_at_a_point() -> None:
    torch.manual_seed(2)
    assert deviation(torch.randn(4000, 32)) == pytest.approx(1.0, abs=0.01)
    assert deviation(torch.ones(50, 32)) == pytest.approx(0.0, abs=1e-6)
    # Two opposite points along one of four axes: that dimension deviates by 1, the others by 0; (1/4) sqrt(4).
    assert deviation(torch.tensor([[5.0, 0, 0, 0], [-1.0, 0, 0, 0]])) == pytest.approx(0.5)


def test_alignment_is_a_squared_distance() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert alignment(a, b) == pytest.approx((2 + 0) / 2)
    assert alignment(a, -a) == pytest.approx(4.0)
    assert alignment(a, 7 * a) == pytest.approx(0.0, abs=1e-12)


def test_uniformity_is_the_paper_s_formula() -> None:
    torch.manual_seed(3)
    z = torch.randn(9, 4)
    total, pairs = 0.0, 0
    for i in range(9):
        for j in range(i):
            a, b = z[i] / z[i].norm(), z[j] / z[j].norm()
            total += math.exp(-2 * float((a - b).square().sum()))
            pairs += 1
    assert uniformity(z) == pytest.approx(math.log(total / pairs), abs=1e-5)
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert uniformity(torch.randn(512, 512)) < -3.9
    with pytest.raises(ValueError, match="at least 2 embeddings"):
        uniformity(z[:1])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent(alpha: float) -> None:
    """Vectors whose covariance has exactly the eigenvalues j^-alpha, in any basis."""
    q, _ = torch.linalg.qr(torch.randn(400, 64, dtype=torch.float64))
    q = torch.linalg.qr(q - q.mean(dim=0))[0]  # orthonormal columns that sum to zero
    basis, _ = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))
    z = q * torch.arange(1, 65, dtype=torch.float64).pow(-alpha / 2) @ basis
    assert alpha_req(z) == pytest.approx(alpha, abs=1e-6)
    assert alpha_req(z + 3.0) == pytest.approx(alpha, abs=1e-6)
    assert alpha_req(7.0 * z) == pytest.approx(alpha, abs=1e-6)


def test_alpha_req_of_what_has_no_law() -> None:
    assert math.isnan(alpha_req(torch.ones(50, 8)))
    assert math.isnan(alpha_req(torch.full((5, 3), math.nan)))


def test_lidar_counts_the_directions_that_tell_items_apart() -> None:
    g = torch.Generator().manual_seed(0)
    items = torch.zeros(300, 1, 32)
    items[:, :, :5] = torch.randn(300, 1, 5, generator=g)  # five directions differ between items
    noise = torch.randn(300, 10, 32, generator=g)
    assert lidar(items + 1e-3 * noise) == pytest.approx(5, rel=0.05)
    nuisance = torch.cat([torch.zeros(300, 10, 20), 30 * noise[:, :, 20:]], dim=2)  # loud, but the same for all items
    assert lidar(items + 1e-3 * noise + nuisance) == pytest.approx(5, rel=0.05)
    assert rankme((items + 1e-3 * noise + nuisance).flatten(0, 1)) > 8  # which RankMe takes for information


def test_lidar_is_its_definition() -> None:
    z = torch.randn(6, 4, 3, dtype=torch.float64)
    means = z.mean(1)
    sigma_b = torch.stack([torch.outer(m - means.mean(0), m - means.mean(0)) for m in means]).sum(0) / 5
    sigma_w = sum(torch.outer(z[i, j] - means[i], z[i, j] - means[i]) for i in range(6) for j in range(4)) / (6 * 3)
    sigma_w = sigma_w + 1e-4 * torch.eye(3, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvals(torch.linalg.solve(sigma_w, sigma_b)).real
    p = eigenvalues / eigenvalues.sum() + 1e-7
    assert lidar(z) == pytest.approx(float((-(p * p.log()).sum()).exp()))
    with pytest.raises(ValueError, match="got 6 and 1"):
        lidar(z[:, :1])


def test_spearman_is_scipys() -> None:
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    for _ in range(20):
        a, b = draw.integers(0, 6, 12).astype(float), draw.normal(size=12)  # with ties
        assert spearman(a.tolist(), b.tolist()) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman([1.0, 2.0, 3.0], [10.0, 20.0, 400.0]) == 1
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_match_counts_those_who_find_themselves() -> None:
    z = torch.eye(4)
    assert match(z, 3 * z) == 1
    assert match(z, z[[1, 0, 2, 3]]) == 0.5
    assert match(torch.ones(4, 2), torch.ones(4, 2)) == 0.25  # all the same: the first of them is found
