"""Label-free measures: formulas in loops, numbers known by hand, invariances."""

import math

import pytest
import torch

from selfsup.evaluation.measures import alignment, collapse_warning, deviation, rankme, uniformity


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


def test_healthy_embeddings_raise_no_alarm() -> None:
    torch.manual_seed(4)
    for width, rows in ((2, 100), (128, 512), (2048, 512)):
        z = torch.randn(rows, width).relu()  # with a large common mean, as after a ReLU
        assert collapse_warning(rankme(z), deviation(z), width, rows=rows) is None


def test_collapses_are_told_apart() -> None:
    torch.manual_seed(5)
    point = torch.ones(256, 64) + 1e-4 * torch.randn(256, 64)
    assert "complete collapse" in str(collapse_warning(rankme(point), deviation(point), 64))
    line = torch.randn(256, 1) @ torch.randn(1, 64)
    assert "use about 1.0 of 64 directions" in str(collapse_warning(rankme(line), deviation(line), 64))
    assert "diverged" in str(collapse_warning(math.nan, 0.5, 64))
