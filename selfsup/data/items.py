"""Items: what every other room sees of the data.

Axes: B items in a batch, N items in all, C channels, H and W of the canvas, D features.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from selfsup.data.errors import Skipped
from selfsup.data.files.listing import Names
from selfsup.data.images.arrays import ArraySource, map_npy
from selfsup.data.images.decode import Target, to_uint8
from selfsup.data.images.prepare import batch
from selfsup.data.images.sources import Source
from selfsup.data.tables.columns import TableSource
from selfsup.data.tables.schema import Schema
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.method import Batch


@runtime_checkable
class Store(Protocol):
    """Where pixels or vectors are. `slow`: every gather decodes, so that processes are worth having."""

    slow: bool

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows (B,) -> (B, C, H, W) uint8 or (B, D) float32, freshly allocated."""
        ...


class MappedStore:
    """(N, C, H, W) uint8 in a .npy file, mapped when first used and in every process anew."""

    slow = False

    def __init__(self, path: Path) -> None:
        self._path, self._array = path, map_npy(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_path"])  # type: ignore[misc]

    def gather(self, rows: Int64[np.ndarray, "B"]) -> UInt8[np.ndarray, "B C H W"]:
        """Copy rows out of the map."""
        return self._array[rows]


@dataclass(frozen=True)
class ArrayStore:
    """Images (N, H, W, C) of any type that need no shrinking, turned into uint8 as they are asked for."""

    source: ArraySource
    target: Target
    slow = False

    def gather(self, rows: Int64[np.ndarray, "B"]) -> UInt8[np.ndarray, "B C H W"]:
        """Convert rows."""
        return np.ascontiguousarray(to_uint8(self.source.array[rows], self.target).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class VectorStore:
    """Vectors (N, D) of any real type."""

    source: ArraySource
    slow = False

    def gather(self, rows: Int64[np.ndarray, "B"]) -> Float32[np.ndarray, "B D"]:
        """Convert rows."""
        return self.source.array[rows].astype(np.float32)


@dataclass(frozen=True)
class TableStore:
    """Rows of a table, made into vectors as they are asked for."""

    source: TableSource
    slow = False

    def gather(self, rows: Int64[np.ndarray, "B"]) -> Float32[np.ndarray, "B D"]:
        """Numbers as they are, NaN where missing; each category's block with a 1 in one place."""
        schema = self.source.schema
        pairs = list(zip(schema.columns, schema.starts, strict=True))
        numbers = [start for column, start in pairs if column.levels is None]
        blocks = np.array([start for column, start in pairs if column.levels is not None], np.int64)
        out = np.zeros((len(rows), schema.width), np.float32)
        out[:, numbers] = self.source.numbers[rows]
        np.put_along_axis(out, blocks + self.source.codes[rows], 1, axis=1)
        return out


@dataclass(frozen=True)
class StreamedStore:
    """Encoded images, decoded whenever they are asked for."""

    source: Source
    target: Target
    slow = True

    def gather(self, rows: Int64[np.ndarray, "B"]) -> UInt8[np.ndarray, "B C H W"]:
        """Decode rows in this process."""
        return batch(self.source, rows, self.target)


@dataclass(frozen=True, eq=False)
class Items:
    """Data without order: N images, vectors or texts, by number. Made by `open_data`; read-only; may be sent to another process.

    Attributes:
        kind: "image", "vector" or "text".
        shape: of one canvas, (C, H, W), or (D,), or (T,) tokens.
        image_size: side of the square that training should use if nobody says otherwise, in pixels; 0 for vectors and text.
        labels: (N,) int64 numbers of `classes`, -1 for unknown; None where the data has no classes.
        classes: names of the classes.
        names: N names to show: relative paths, or "row 17".
        skipped: what was left out and why.
        fingerprint: hex, changes when the data changes.
        source: absolute path, or "array", "dataset".
        value_range: (low, high) that became 0 and 255, where values had more than 8 bits; give it to `open_data` for data that must match.
        refused: how many of `skipped` are images or rows that were lost.
        table: what the places of a vector mean, where it is a row of a table.
        tokenizer: of text.
    """

    kind: Literal["image", "vector", "text"]
    shape: tuple[int, ...]
    image_size: int
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: Sequence[str]
    skipped: tuple[Skipped, ...]
    fingerprint: str
    source: str
    store: Store
    rows: np.ndarray  # (N,) int64, where each item is in the store
    sizes: np.ndarray | None  # (N, 2) int32 height and width within the canvas, None where all fill it
    value_range: tuple[float, float] | None = None
    refused: int = 0
    tokenizer: Tokenizer | None = None
    table: Schema | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: np.ndarray) -> Batch:
        """The items of these numbers.

        Args:
            index: (B,) integers, 0 to N - 1, in any order.
        Returns:
            "image" (B, C, H, W) uint8 and "size" (B, 2) int64, "vector" (B, D) float32, or "text" (B, T) int64 token numbers; "label"
            where there are classes; "index".
        Raises:
            ValueError: a number out of range.
            BadDataError: an image that is decoded on the fly cannot be read any more.
        """
        index = self.checked(index)
        return self.complete(self.store.gather(self.rows[index]), index)

    def checked(self, index: np.ndarray) -> np.ndarray:
        """`index` as int64, every number in range."""
        index = np.asarray(index, np.int64)
        if index.ndim != 1 or (index.size and (index.min() < 0 or index.max() >= len(self))):
            raise ValueError(
                f"index must be 1-D within 0..{len(self) - 1}, got shape {index.shape}"
                + (f", {index.min()}..{index.max()}" if index.size else "")
            )
        return index

    def complete(self, gathered: np.ndarray, index: np.ndarray) -> Batch:
        """Gathered images or vectors -> batch, with everything else that is known of these items."""
        out: Batch = {self.kind: torch.from_numpy(gathered)}
        if self.sizes is not None:
            out["size"] = torch.from_numpy(self.sizes[index].astype(np.int64))
        if self.labels is not None:
            out["label"] = torch.from_numpy(self.labels[index])
        out["index"] = torch.from_numpy(index.copy())
        return out

    def subset(self, index: np.ndarray) -> "Items":
        """The items of these numbers, in this order, with a fingerprint of their own; pixels are not copied, classes stay."""
        index = self.checked(index)
        fingerprint = self.fingerprint
        if not np.array_equal(index, np.arange(len(self))):
            fingerprint = hashlib.blake2b(fingerprint.encode() + index.tobytes(), digest_size=16).hexdigest()
        names = self.names.take(index) if isinstance(self.names, Names) else [self.names[int(i)] for i in index]
        labels = None if self.labels is None else self.labels[index]
        sizes = None if self.sizes is None else self.sizes[index]
        return replace(self, rows=self.rows[index], names=names, labels=labels, sizes=sizes, fingerprint=fingerprint)
