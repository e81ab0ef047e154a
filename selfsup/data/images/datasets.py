"""A map-style torch Dataset as data.

Its items are read in this process: it is the user's code, which may not survive being sent to another.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from selfsup.data.files.listing import Listing, Names
from selfsup.data.images.arrays import array_source, number_labels
from selfsup.data.images.decode import head


class DatasetSource:
    """Items of a dataset; item i is a Pillow image or an array (H, W, C).

    Attributes:
        heads: (N, 4) height, width, channels, kind of values; height 0 where an item cannot be used.
        bad: why, for those.
    """

    seekable = True
    portable = False
    groups = None

    def __init__(self, dataset: Any, listing: Listing, heads: np.ndarray, bad: dict[int, str]) -> None:
        self._dataset, self.listing, self.heads, self.bad = dataset, listing, heads, bad

    def read(self, i: int, *, head: bool = False) -> np.ndarray | Image.Image:
        """Item i without its label."""
        return split(self._dataset[i])[0]


def open_dataset(dataset: Any, max_pixels: int, progress: Callable[[str, int, int], None] | None) -> Any:
    """Read every item once, for its size, label and fingerprint. Vectors are kept, images are not.

    Raises:
        ValueError: items of a kind that is not understood.
    """
    keep = _holds_vectors(dataset)
    vectors: list[np.ndarray] = []
    heads, bad, labels = np.zeros((len(dataset), 4), np.int32), {}, []
    digest = hashlib.blake2b(digest_size=16)
    for i in range(len(dataset)):
        label = None
        try:
            item, label = split(dataset[i])
            if keep:
                vectors.append(np.asarray(item))
            else:
                heads[i] = head(item, max_pixels)
            digest.update(np.asarray(item).tobytes())
        except Exception as error:  # the user's code may raise anything; one bad item is counted like a bad file
            if keep:
                raise
            heads[i, 0], bad[i] = 0, f"{type(error).__name__}: {error}"
        labels.append(label)
        if progress is not None and (i + 1 == len(dataset) or i % 1000 == 999):
            progress("reading the dataset", i + 1, len(dataset))
    numbers = _as_array(labels)
    if keep:
        return array_source(np.stack(vectors), numbers, "dataset", "")
    known, classes = number_labels(numbers) if numbers is not None else (None, ())
    digest.update(b"" if known is None else known.tobytes())
    names = Names.of(b"row %d" % i for i in range(len(dataset)))
    return DatasetSource(dataset, Listing(names, known, classes, (), 0, digest.hexdigest(), "dataset"), heads, bad)


def _holds_vectors(dataset: Any) -> bool:
    try:
        first = split(dataset[0])[0]
    except Exception:  # counted as a bad item soon
        return False
    return isinstance(first, np.ndarray) and first.ndim == 1


def _as_array(labels: Sequence[Any]) -> np.ndarray | None:
    if all(label is None for label in labels):
        return None
    if any(isinstance(label, str) for label in labels):
        return np.array([str(label) for label in labels])
    try:
        return np.array([-1 if label is None else int(label) for label in labels], np.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"labels of a dataset must be integers or strings, got {type(labels[0]).__name__}: {error}") from error


def split(item: Any) -> tuple[np.ndarray | Image.Image, Any]:
    """An item of a dataset -> (image or vector, label or None).

    Raises:
        ValueError: neither an image, an array, a tensor, nor a pair that begins with one.
    """
    label = None
    if isinstance(item, tuple | list) and len(item) == 2:
        item, label = item
    if isinstance(item, Image.Image):
        return item, label
    if hasattr(item, "detach"):  # a tensor, (C, H, W) by torch's convention
        item = item.detach().cpu().numpy()
        item = item.transpose(1, 2, 0) if item.ndim == 3 else item
    if not isinstance(item, np.ndarray) or item.ndim not in (1, 2, 3) or item.dtype.kind not in "buif":
        got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
        raise ValueError(
            f"an item must be a Pillow image, an array (H, W, C), a tensor (C, H, W), a vector, or (one of these, label); got {got}"
        )
    return item[..., None] if item.ndim == 2 else item, label
