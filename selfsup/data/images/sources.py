"""Which source reads what the user points at."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from selfsup.data.files.folders import open_folder, open_paths
from selfsup.data.files.listing import IMAGE_SUFFIXES, Listing, suffix_of
from selfsup.data.files.parquet import open_parquet
from selfsup.data.files.tars import open_tar
from selfsup.data.files.zips import open_zip
from selfsup.data.images.arrays import array_source, open_npy, open_npz
from selfsup.data.images.datasets import open_dataset
from selfsup.data.images.decode import Raw
from selfsup.data.tables.columns import TableSource, read_table
from selfsup.data.tables.csvs import SUFFIXES, CsvReader
from selfsup.data.tables.schema import Schema

_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_KINDS = "a folder, .zip, .tar (.gz, .bz2, .xz), .npy, .npz, .parquet, .csv, .tsv (.gz), a list of paths, an array, or a torch Dataset"


@runtime_checkable
class Source(Protocol):
    """Raw items, counted and named; safe to use in any process, nothing is ever extracted.

    Attributes:
        listing: names, classes and what was left out.
        seekable: whether any item can be read at once, in any order.
        portable: whether it can be sent to another process.
        groups: first items of the groups that are read together, None where every item stands alone.
        heads: what pass 1 would find, where that is known already.
    """

    listing: Listing
    seekable: bool
    portable: bool
    groups: np.ndarray | None
    heads: np.ndarray | None

    def read(self, i: int, *, head: bool = False) -> Raw:
        """Item i; with `head` perhaps only its first 64 KiB."""
        ...


def open_source(
    data: Any,
    *,
    max_pixels: int = 64_000_000,
    progress: Callable[[str, int, int], None] | None = None,
    schema: Schema | None = None,
) -> Source | TableSource:
    """Look through the data without decoding it.

    Args:
        data: a path, perhaps into an archive ("photos.zip/train"); a list of paths; an array (N, H, W, C), (N, H, W) or (N, D); a tensor
            (N, C, H, W), (N, H, W) or (N, D); or a map-style torch Dataset. A table may name the column of its classes:
            "table.csv?label=COLUMN".
        max_pixels: above it an image of a Dataset is refused.
        progress: called with (what, done, total).
        schema: of a table, what its columns must be; None to learn it.
    Raises:
        ValueError: nothing that can be read as data.
        BadDataError: a damaged file.
    """
    if isinstance(data, str | os.PathLike):
        return _open_path(Path(data).expanduser(), schema)
    if isinstance(data, np.ndarray):
        return array_source(data, None, "array", "")
    if hasattr(data, "detach"):  # a tensor
        array = data.detach().cpu().numpy()
        if array.ndim == 4 and array.shape[1] not in (1, 3, 4) and array.shape[3] in (1, 3, 4):
            raise ValueError(
                f"expected a tensor (N, C, H, W), got {array.shape}, which seems to be (N, H, W, C): permute it, or pass a numpy array"
            )
        return array_source(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array, None, "array", "")
    if isinstance(data, Sequence) and len(data) and all(isinstance(path, str | os.PathLike) for path in data):
        return open_paths(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple | dict):
        return open_dataset(data, max_pixels, progress)
    raise ValueError(f"cannot read {type(data).__name__} as data; expected {_KINDS}")


def _open_path(path: Path, schema: Schema | None) -> Source | TableSource:
    label = None
    if "?label=" in str(path) and not path.exists():
        before, _, label = str(path).rpartition("?label=")
        path = Path(before)
    if path.is_dir():
        shards = sorted(file for file in path.iterdir() if file.suffix.lower() == ".parquet" and file.is_file())
        if shards:
            return open_parquet(shards, str(path.resolve()), schema=schema, label=label)
    if path.is_file() and path.name.lower().endswith((".parquet", *SUFFIXES)):
        return _open_table(path, schema, label)
    if label is not None:
        raise ValueError(f'{path}: only tables (.csv, .tsv, .parquet) have a column to choose with "?label={label}"')
    if path.is_dir():
        return open_folder(path)
    if path.is_file():
        return _open_file(path, "")
    for parent in path.parents:  # a folder inside an archive?
        if parent.is_file():
            if not parent.name.lower().endswith(_ZIP + _TAR):
                raise ValueError(f"{parent} is a file, so there can be no {path}; only .zip and .tar have folders inside")
            return _open_file(parent, path.relative_to(parent).as_posix())
    if path.exists():
        raise ValueError(f"{path} is neither a file nor a folder; expected {_KINDS}")
    near = next((parent for parent in path.parents if parent.exists()), Path())
    raise ValueError(f"there is no {path}; {near.resolve()} exists, what follows does not")


def _open_table(path: Path, schema: Schema | None, label: str | None) -> Source | TableSource:
    try:
        if path.suffix.lower() == ".parquet":
            return open_parquet([path], str(path.resolve()), schema=schema, label=label)
        return read_table(CsvReader(path), schema, label)
    except PermissionError as error:
        raise ValueError(f"no permission to read {path}") from error


def _open_file(path: Path, inner: str) -> Source:
    name = path.name.lower()
    try:
        if name.endswith(_ZIP):
            return open_zip(path, inner)
        if name.endswith(_TAR):
            return open_tar(path, inner)
        if name.endswith(".npy"):
            return open_npy(path)
        if name.endswith(".npz"):
            return open_npz(path)
    except PermissionError as error:
        raise ValueError(f"no permission to read {path}") from error
    if suffix_of(os.fsencode(name)) in IMAGE_SUFFIXES:
        return open_paths([path])
    raise ValueError(f"cannot read {path} as data; expected {_KINDS}")
