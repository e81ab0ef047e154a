"""The map: neighbours stay neighbours, clusters stay apart, the same vectors give the same map."""

import pytest
import torch

from selfsup.evaluation.projection import _affinities, _gradient, project


def test_neighbours_stay_neighbours(pixels: tuple) -> None:
    from sklearn.manifold import trustworthiness

    z = pixels[0][:400]
    y = project(z)
    # scikit-learn's TSNE reaches 0.983 here, and the first two principal components 0.86.
    assert trustworthiness(z.numpy(), y.numpy(), n_neighbors=10, metric="cosine") > 0.963


def test_the_same_vectors_give_the_same_map(pixels: tuple) -> None:
    z = pixels[0][:100]
    torch.manual_seed(1)
    first = project(z, iterations=50, exaggerated=20)
    torch.manual_seed(2)
    assert first.equal(project(z, iterations=50, exaggerated=20))
    assert first.mean(dim=0).abs().max() < 1e-3


def test_clusters_lie_apart() -> None:
    torch.manual_seed(0)
    label = torch.arange(90) % 3
    y = project(4 * torch.eye(3, 8)[label] + 0.3 * torch.randn(90, 8))
    centre = torch.stack([y[label == c].mean(dim=0) for c in range(3)])
    within = max(float((y[label == c] - centre[c]).norm(dim=1).max()) for c in range(3))
    assert torch.pdist(centre).min() > 2 * within


def test_gradient_is_that_of_the_divergence() -> None:
    torch.manual_seed(0)
    near, p = _affinities(torch.randn(70, 5))
    y = torch.randn(70, 2, dtype=torch.float64, requires_grad=True)
    full = torch.zeros(70, 70, dtype=torch.float64).scatter_(1, near, p.double())
    full = full + full.T  # p_ij, sums to 1
    assert float(full.sum()) == pytest.approx(1.0, abs=1e-5)
    kernel = 1 / (1 + (y[:, None] - y[None]).square().sum(dim=2))
    kernel = kernel * (1 - torch.eye(70))
    q = kernel / kernel.sum()
    (full * (full.clamp(min=1e-300) / q.clamp(min=1e-300)).log()).sum().backward()
    torch.testing.assert_close(_gradient(y.detach(), near, p.double()), y.grad, atol=1e-7, rtol=1e-4)


def test_affinities_have_the_perplexity_that_was_asked_for() -> None:
    z = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    near, p = _affinities(z)
    assert (near != torch.arange(120)[:, None]).all()
    conditional = p.double() * 2 * 120
    torch.testing.assert_close(conditional.sum(dim=1), torch.ones(120, dtype=torch.float64), atol=1e-5, rtol=0.0)
    entropy = -(conditional * conditional.clamp(min=1e-30).log()).sum(dim=1)
    torch.testing.assert_close(entropy.exp(), torch.full((120,), 30.0, dtype=torch.float64), atol=0.01, rtol=0.0)


@pytest.mark.parametrize("points", [0, 1, 2, 3, 4, 6])
def test_few_points_are_no_special_case(points: int) -> None:
    y = project(torch.randn(points, 5, generator=torch.Generator().manual_seed(points)))
    assert y.shape == (points, 2)
    assert y.isfinite().all()


def test_equal_points_and_one_dimension_give_a_finite_map() -> None:
    assert project(torch.ones(50, 4)).isfinite().all()
    assert project(torch.randn(20, 1)).isfinite().all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at most 5000 embeddings, got 5001"):
        project(torch.zeros(5001, 1))
    with pytest.raises(ValueError, match="finite embeddings"):
        project(torch.full((5, 2), torch.nan))
