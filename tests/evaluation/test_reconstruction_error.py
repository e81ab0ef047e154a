"""A reconstruction's error beside that of principal components: by hand, for images of two sizes and for columns in different units."""

import numpy as np
import pytest
import torch

from selfsup.data import Items, open_data
from selfsup.evaluation.pca import pixels_pca
from selfsup.evaluation.reconstruction_error import reconstruction_against_pca


def test_errors_of_images_by_hand(digits: tuple[Items, Items]) -> None:
    train, test = digits
    found = reconstruction_against_pca(lambda x: x * 0.5, train, test, 10, image_size=8)
    x, y = (items.batch(np.arange(len(items)))["image"].double().flatten(1) / 255 for items in digits)
    assert found.squared_error == pytest.approx(float((0.5 * y).square().mean()), rel=1e-5)
    mean = x.mean(dim=0)
    v = torch.linalg.svd(x - mean, full_matrices=False).Vh[:10]
    by_hand = float(((y - mean) - (y - mean) @ v.T @ v).square().mean())
    assert found.pca_squared_error == pytest.approx(by_hand, rel=0.01)
    assert (found.width, found.items) == (10, len(test))


def test_large_images_are_compared_at_64_pixels() -> None:
    images = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (12, 10, 10, 1), dtype=np.uint8), 8, axis=1), 8, axis=2)
    items = open_data(images, image_size=80)
    sizes = []

    def same(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.shape)
        return x

    found = reconstruction_against_pca(same, items, items, 4, image_size=80)
    assert sizes == [(12, 1, 80, 80)]
    assert found.squared_error < 1e-6
    assert found.pca_squared_error > 1e-3


def test_columns_count_in_standard_deviations() -> None:
    """One column in large units must not be all that principal components see."""
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    x = np.stack([x[:, 0], x[:, 0], x[:, 1], 1e3 * x[:, 2]], axis=1)
    items = open_data(x)
    found = reconstruction_against_pca(torch.zeros_like, items, items, 3, image_size=0)
    assert found.pca_squared_error < 1e-3  # three numbers say all
    assert reconstruction_against_pca(lambda y: y, items, items, 1, image_size=0).squared_error == 0.0
    one = reconstruction_against_pca(torch.zeros_like, items, items, 1, image_size=0)
    assert one.pca_squared_error == pytest.approx(0.5, rel=0.1)  # the two equal columns are half of what varies
    assert one.squared_error == pytest.approx(1.0, rel=0.05)


def test_rows_beside_an_encoder_of_vectors_are_standardised_and_of_its_width() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * [1, 1, 1, 1e4] + 7
    train, test = open_data(x[:40].astype(np.float32)), open_data(x[40:].astype(np.float32))
    train_z, test_z = pixels_pca(train, test, 2, image_size=0)
    assert (train_z.shape, test_z.shape) == ((40, 2), (10, 2))
    assert float(train_z.std(dim=0).max()) < 2
    assert pixels_pca(train, test, 9, image_size=0)[0].shape == (40, 4)
