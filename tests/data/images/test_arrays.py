"""Arrays, tensors, vectors and torch datasets as data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.data import Items, open_data


def pixels(items: Items) -> np.ndarray:
    return items.batch(np.arange(len(items)))["image"].numpy()


def test_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)
    labels = np.array([3, 1, 3, -1, 1])
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "packed.npz", images=images, labels=labels)
    expected = images.transpose(0, 3, 1, 2)
    for data in (images, torch.from_numpy(expected.copy()), tmp_path / "images.npy"):
        items = open_data(data)
        np.testing.assert_array_equal(pixels(items), expected)
        assert (items.shape, items.image_size, items.classes, items.sizes) == ((3, 8, 6), 6, (), None)
    for path in (tmp_path / "plain.npz", tmp_path / "packed.npz"):
        items = open_data(path)
        np.testing.assert_array_equal(pixels(items), expected)
        assert items.classes == ("1", "3")
        assert items.labels is not None
        assert items.labels.tolist() == [1, 0, 1, -1, 0]
    assert open_data(images[..., 0]).shape == (1, 8, 6)
    assert open_data(np.zeros((4, 9, 9, 7), np.uint8)).shape == (7, 9, 9)
    np.testing.assert_array_equal(pixels(open_data(images / 255.0)), expected)
    np.testing.assert_array_equal(pixels(open_data(images[..., :1] > 127))[:, 0], (images[..., 0] > 127) * 255)
    digits = open_data(np.arange(17.0).repeat(16).reshape(17, 4, 4))  # sklearn's digits run from 0 to 16
    assert digits.value_range == (0.0, 16.0)
    np.testing.assert_array_equal(pixels(digits)[:, 0, 0, 0], np.rint(np.arange(17) * 255 / 16))
    assert not (tmp_path / "cache").exists(), "small arrays need no cache"


def test_large_arrays_are_shrunk_into_the_cache(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 128, 2), np.uint8)
    np.save(tmp_path / "large.npy", images)
    for data in (images, tmp_path / "large.npy"):
        items = open_data(data, image_size=16)
        assert items.shape == (2, 12, 24)
        np.testing.assert_allclose(pixels(items).mean(axis=(2, 3)), images.mean(axis=(1, 2)), atol=2)


def test_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    x[7, 2] = np.nan
    items = open_data(x)
    assert (items.kind, items.shape, items.image_size, len(items)) == ("vector", (5,), 0, 199)
    batch = items.batch(np.array([6, 7]))
    assert batch["vector"].dtype == torch.float32
    np.testing.assert_allclose(batch["vector"], x[[6, 8]], rtol=1e-6)
    assert [(skipped.name, skipped.reason) for skipped in items.skipped] == [("row 7", "values are not finite (NaN or infinity)")]


class Pairs(torch.utils.data.Dataset):
    """Pillow images, arrays and tensors of the same pixels, with labels."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple:
        if i == 5:
            raise RuntimeError("no such item")
        image = np.full((4, 6, 3), 10 * i, np.uint8)
        kinds = [Image.fromarray(image), image, torch.from_numpy(image.transpose(2, 0, 1).copy())]
        return kinds[i % 3], i % 2


def test_a_torch_dataset() -> None:
    for cache in (True, False):
        items = open_data(Pairs(), max_bad=0.2, cache=cache)
        assert items.shape == (3, 4, 6)
        np.testing.assert_array_equal(pixels(items)[:, 0, 0, 0], [0, 10, 20, 30, 40])
        assert items.labels is not None
        assert items.labels.tolist() == [0, 1, 0, 1, 0]
        assert items.skipped[0].reason == "RuntimeError: no such item"
    vectors = torch.utils.data.TensorDataset(torch.randn(9, 4), torch.arange(9) % 3)
    items = open_data(vectors)
    assert (items.kind, items.shape, items.classes) == ("vector", (4,), ("0", "1", "2"))
    np.testing.assert_array_equal(items.batch(np.array([4]))["vector"][0], vectors[4][0])


class OneHot(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> tuple:
        return np.zeros((4, 4, 3), np.uint8), torch.eye(2)[i]


def test_labels_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match="must be integers or strings, got Tensor"):
        open_data(OneHot())
