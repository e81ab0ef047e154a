"""PCA against an exact decomposition, and pixels as an encoder has to beat them."""

import numpy as np
import pytest
import torch

from selfsup.data import Items
from selfsup.evaluation.pca import fit_pca, pixels_pca


def test_components_are_those_of_the_exact_decomposition() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 60) * torch.linspace(5, 0.5, 60) @ torch.linalg.qr(torch.randn(60, 60)).Q + 3
    pca = fit_pca(x, 8)
    exact = torch.linalg.svd((x - x.mean(dim=0)).double(), full_matrices=False).Vh[:8].float()
    torch.testing.assert_close((pca.components @ exact.T).abs(), torch.eye(8), atol=0.05, rtol=0.0)
    explained = [pca.transform(x).var(dim=0).sum(), ((x - x.mean(dim=0)) @ exact.T).var(dim=0).sum()]
    assert explained[0] > 0.999 * explained[1]
    variances = pca.transform(x).var(dim=0)
    assert (variances.diff() < 0).all()


def test_all_components_keep_all_distances(pixels: tuple) -> None:
    x = pixels[0][:200]
    pca = fit_pca(x, 64)
    torch.testing.assert_close(torch.pdist(pca.transform(x)), torch.pdist(x), atol=1e-4, rtol=1e-4)


def test_width_is_what_exists() -> None:
    torch.manual_seed(1)
    assert fit_pca(torch.randn(10, 30), 256).width == 9
    assert fit_pca(torch.randn(100, 5), 256).width == 5
    assert fit_pca(torch.randn(2, 5), 3).transform(torch.randn(4, 5)).shape == (4, 1)
    with pytest.raises(ValueError, match="at least 2 rows and width 1, got 1 rows"):
        fit_pca(torch.randn(1, 5), 3)


def test_a_seed_decides_everything() -> None:
    x = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = fit_pca(x, 5, seed=3)
    torch.manual_seed(2)
    assert first.components.equal(fit_pca(x, 5, seed=3).components)


def test_at_most_ten_thousand_rows_are_fitted() -> None:
    x = torch.randn(10_001, 3, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 9
    pca = fit_pca(x, 1)
    assert not pca.mean.equal(x.mean(dim=0))
    assert pca.components[0, 0] > 0.99


def test_pixels_are_fitted_on_the_training_items_only(digits: tuple[Items, Items]) -> None:
    train, test = digits
    train_z, test_z = pixels_pca(train, test, 16, image_size=8)
    assert train_z.shape == (1297, 16)
    assert test_z.shape == (500, 16)
    torch.testing.assert_close(train_z.mean(dim=0), torch.zeros(16), atol=1e-4, rtol=0.0)
    again, fewer = pixels_pca(train, test.subset(np.arange(3)), 16, image_size=8)
    assert again.equal(train_z)
    torch.testing.assert_close(fewer, test_z[:3])
