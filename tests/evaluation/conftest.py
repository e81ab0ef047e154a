"""Real digits, 8 x 8, as arrays and as items."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from selfsup.data import Items, open_data

Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def as_items(images: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...]) -> Items:
    """(N, H, W) or (N, H, W, C) uint8 images, or (N, D) float32 vectors."""
    return replace(open_data(images, cache=False), labels=labels, classes=classes)


@pytest.fixture(scope="session")
def digits() -> tuple[Items, Items]:
    """1,297 training and 500 test images, shuffled."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels, names = labels[order].astype(np.int64), tuple("0123456789")
    return as_items(images[:1297], labels[:1297], names), as_items(images[1297:], labels[1297:], names)


@pytest.fixture(scope="session")
def pixels(digits: tuple[Items, Items]) -> Split:
    """Training rows (1297, 64) and labels, test rows (500, 64) and labels."""
    found = []
    for items in digits:
        batch = items.batch(np.arange(len(items)))
        found += [batch["image"].flatten(1).float() / 255, batch["label"]]
    return found[0], found[1], found[2], found[3]
