"""Parquet: images in a column of encoded bytes, or of {"bytes", "path"} as Hugging Face datasets writes them; else a table."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.errors import BadDataError, Skipped
from selfsup.data.files.listing import HEAD_BYTES, Listing, Names, file_fingerprint
from selfsup.data.images.arrays import number_labels
from selfsup.data.tables.columns import LABEL_COLUMNS, TableSource, read_table
from selfsup.data.tables.schema import Schema

_ROWS_AT_ONCE = 64
_TABLE_ROWS_AT_ONCE = 65_536


class ParquetSource:
    """Rows of one or more files; item i is the encoded bytes of row i. Rows are unpacked in groups, so they are read forward only.

    Attributes:
        groups: (G,) first item of every row group; a task that starts elsewhere has to unpack what comes before it.
    """

    groups: np.ndarray | None
    portable = True
    seekable = False
    heads = None

    def __init__(self, paths: Sequence[Path], column: str, groups: np.ndarray, where: np.ndarray, listing: Listing) -> None:
        self._paths, self._column, self._starts, self._where, self.listing = tuple(paths), column, groups, where, listing
        self.groups = groups
        self._next, self._rows, self._pid = -1, iter(()), -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_next": -1, "_rows": iter(()), "_pid": -1}

    def read(self, i: int, *, head: bool = False) -> bytes:
        """Item i, or only its beginning."""
        group = int(np.searchsorted(self._starts, i, "right")) - 1
        if self._pid != os.getpid() or not (max(self._next, 0) <= i) or int(self._starts[group]) > self._next:
            self._rows, self._next, self._pid = self._from(group), int(self._starts[group]), os.getpid()
        while True:
            value = next(self._rows)
            self._next += 1
            if self._next > i:
                break
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise ValueError(
                "the row holds no bytes" + (f", only the path {value['path']!r}" if isinstance(value, dict) and value.get("path") else "")
            )
        return data[:HEAD_BYTES] if head else data

    def _from(self, group: int) -> Iterator[Any]:
        for file, number in self._where[group:]:
            opened = pyarrow_parquet().ParquetFile(self._paths[file])
            for batch in opened.iter_batches(_ROWS_AT_ONCE, row_groups=[int(number)], columns=[self._column], use_threads=False):
                column = batch.column(0)
                for k in range(len(column)):
                    yield column[k].as_py()


def pyarrow_parquet() -> Any:
    """The module pyarrow.parquet.

    Raises:
        ValueError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("reading parquet needs pyarrow, which is not installed: pip install 'selfsup[data]'") from error
    return pyarrow.parquet


def open_parquet(
    paths: Sequence[Path], origin: str, *, schema: Schema | None = None, label: str | None = None
) -> ParquetSource | TableSource:
    """Every row of the files, in order: images where a column holds encoded ones, else a table.

    Args:
        paths: files with the same columns.
        origin: for messages.
        schema, label: as in `selfsup.data.tables.columns.read_table`; `label` also names the column of the classes of images.
    Raises:
        BadDataError: a file is damaged.
        ValueError: several columns with encoded images; no such label column; pyarrow missing.
    """
    parquet = pyarrow_parquet()
    import pyarrow as pa

    table = ParquetReader(paths, origin)
    if not _image_columns(table.arrow, pa):
        return read_table(table, schema, label)
    if label and label not in table.names:
        raise ValueError(f'{origin} has no column "{label}" for the classes; it has {", ".join(table.names)}')
    groups, where, labels = [0], [], []
    column, asked, label = None, label, None
    digest, names, nbytes = hashlib.blake2b(digest_size=16), (), 0
    for f, path in enumerate(paths):
        try:
            file = parquet.ParquetFile(path)
            if column is None:
                column = _image_column(file.schema_arrow, pa, path)
                usual = (name for name in LABEL_COLUMNS if name in file.schema_arrow.names)
                label = next(usual, None) if asked is None else asked or None
                names = _class_names(file.schema_arrow, label)
            for g in range(file.metadata.num_row_groups):
                where.append((f, g))
                groups.append(groups[-1] + file.metadata.row_group(g).num_rows)
            if label is not None:
                labels.append(file.read([label]).column(0).to_numpy())
        except (pa.ArrowException, OSError, KeyError) as error:
            raise BadDataError(f"{path} is not readable parquet, or differs in its columns from the file before: {error}") from error
        nbytes += path.stat().st_size
        digest.update(file_fingerprint(path).encode())
    numbers, classes = _numbers(labels, names)
    rows = Names.of(b"row %d" % i for i in range(groups[-1]))
    origin = origin if asked is None else f"{origin}?label={asked}"
    listing = Listing(rows, numbers, classes, (), 0, digest.hexdigest(), origin, nbytes)
    return ParquetSource(paths, str(column), np.array(groups[:-1], np.int64), np.array(where, np.int64).reshape(-1, 2), listing)


def _numbers(labels: list[np.ndarray], names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if not labels:
        return None, ()
    joined = np.concatenate(labels)
    if joined.dtype.kind == "f":  # integers with missing values come as floats
        joined = np.where(np.isfinite(joined), joined, -1).astype(np.int64)
    return number_labels(joined, names)


def _image_columns(schema: Any, pa: Any) -> list[str]:
    def encoded(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and encoded(field.type) for field in kind)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return [field.name for field in schema if encoded(field.type)]


def _image_column(schema: Any, pa: Any, path: Path) -> str:
    found = _image_columns(schema, pa)
    usual = [name for name in found if name in ("image", "img", "bytes")]
    if len(found) != 1 and len(usual) != 1:
        raise ValueError(f'{path} must have one column of encoded images, or one named "image"; got {", ".join(map(str, schema.names))}')
    return found[0] if len(found) == 1 else usual[0]


def _class_names(schema: Any, label: str | None) -> tuple[str, ...]:
    """What Hugging Face datasets writes about a ClassLabel column, if it did."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in info["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


class ParquetReader:
    """Rows of one or more files as a table; see `selfsup.data.tables.columns.Reader`.

    Attributes:
        arrow: the columns of the first file, as pyarrow has them.
    """

    def __init__(self, paths: Sequence[Path], origin: str) -> None:
        parquet = pyarrow_parquet()
        import pyarrow as pa

        self._paths, self.origin = tuple(paths), origin
        try:
            self.arrow = parquet.read_schema(paths[0])
        except (pa.ArrowException, OSError) as error:
            raise BadDataError(f"{paths[0]} is not readable parquet: {error}") from error
        self.names = tuple(self.arrow.names)
        self.typed = {field.name: _kind(field.type, pa) for field in self.arrow}
        self.skipped: list[Skipped] = []
        self.refused = 0
        self.fingerprint = hashlib.blake2b("".join(file_fingerprint(path) for path in paths).encode(), digest_size=16).hexdigest()
        self.nbytes = sum(path.stat().st_size for path in paths)
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f'{origin}: several columns are named "{twice}"; every column needs a name of its own')

    def chunks(self, wanted: set[str]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Numbers of some rows (n,), and for each wanted column n texts, or n float64 with NaN for missing.

        Raises:
            BadDataError: a file is damaged, or lacks a column that the first one has.
        """
        import pyarrow as pa

        columns, done = [name for name in self.names if name in wanted], 0
        for path in self._paths:
            try:
                for batch in pyarrow_parquet().ParquetFile(path).iter_batches(_TABLE_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    values = {name: _values(batch.column(name), self.typed[name], pa) for name in columns}
                    yield np.arange(done, done + len(batch)), values
                    done += len(batch)
            except (pa.ArrowException, OSError, KeyError) as error:
                raise BadDataError(f"{path} is not readable parquet, or differs in its columns from the file before: {error}") from error


def _kind(kind: Any, pa: Any) -> str:
    """ "number", "category", or why a column of this type cannot be used."""
    t = pa.types
    value = kind.value_type if t.is_dictionary(kind) else kind
    if t.is_integer(value) or t.is_floating(value) or t.is_decimal(value):
        return "number"
    if t.is_boolean(value) or t.is_string(value) or t.is_large_string(value):
        return "category"
    return "no values" if t.is_null(value) else f"{kind} is neither a number nor a text"


def _values(column: Any, kind: str, pa: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "number":
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return ["" if value is None else str(value) for value in column.to_pylist()]
