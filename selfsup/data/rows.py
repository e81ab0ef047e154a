"""Rows of small tables of text: .tsv, .csv, .jsonl and .parquet, the first three also as .gz; and lines."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfsup.data.errors import BadDataError

TABLES = (".tsv", ".csv", ".jsonl", ".parquet")


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file: that before .gz where there is one."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def read_lines(path: Path) -> list[str]:
    """Lines of a file of text without their ends; only a newline ends one, bad bytes become U+FFFD.

    Raises:
        BadDataError: a damaged .gz.
    """
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with _whole(path), opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="\n") as file:  # type: ignore[operator]
        return [line.rstrip("\r\n") for line in file]


def read_rows(path: Path) -> list[list[str]] | list[dict[str, Any]]:
    """Rows of .tsv (no quotes) or .csv as lists, a header like any other row; of .jsonl and .parquet as dictionaries. Blank ones are none.

    Raises:
        ValueError: another kind of file, or parquet without the library.
        BadDataError: it is damaged; names the line.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".tsv":
        return [line.split("\t") for line in read_lines(path) if line.strip()]
    if kind == ".jsonl":
        return read_json_lines(path)
    if kind != ".csv":
        raise ValueError(f"{path}: expected .txt, {', '.join(TABLES)}, or a folder of classes")
    try:
        return [row for row in csv.reader(line + "\n" for line in read_lines(path)) if any(row)]
    except csv.Error as error:
        raise BadDataError(f"{path}: no table with commas ({error})") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of JSON, one a line, whatever the file is called.

    Raises:
        BadDataError: a line that is none.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise BadDataError(f"{path}: line {number} is no JSON ({error})") from None
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow; install selfsup[data]") from None
    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadDataError(f"{path}: not parquet, or damaged: {error}") from None


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadDataError(f"{path}: damaged: {error}") from None
