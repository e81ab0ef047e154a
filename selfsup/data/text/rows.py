"""Rows of small tables of text: .tsv, .csv, .jsonl and .parquet, the first three also as .gz; and lines."""

import csv
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from selfsup.data.errors import BadDataError
from selfsup.data.text.documents import Counts, decoded, lines_of, open_bytes, parquet_rows, text_suffix

TABLES = (".tsv", ".csv", ".jsonl", ".parquet")


def read_lines(path: Path, counts: Counts | None = None) -> list[str]:
    """Lines of a file of text without their ends; bad bytes become U+FFFD, NULs are dropped, and both are counted.

    Raises:
        BadDataError: a damaged .gz.
    """
    try:
        with open_bytes(path) as file:
            return list(lines_of(decoded(file, Counts() if counts is None else counts)))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadDataError(f"{path}: damaged: {error}") from None


def read_rows(path: Path, counts: Counts | None = None) -> list[list[str]] | list[dict[str, Any]]:
    """Rows of .tsv (no quotes) or .csv as lists, a header like any other row; of .jsonl and .parquet as dictionaries. Blank ones are none.

    Raises:
        ValueError: another kind of file, or parquet without the library.
        BadDataError: it is damaged; names the line.
    """
    kind = text_suffix(path)
    if kind == ".parquet":
        try:
            return list(parquet_rows(path))
        except OSError as error:
            raise BadDataError(f"{path}: {error}") from None
    if kind == ".tsv":
        return [line.split("\t") for line in read_lines(path, counts) if line.strip()]
    if kind == ".jsonl":
        return read_json_lines(path, counts)
    if kind != ".csv":
        raise ValueError(f"{path}: expected .txt, {', '.join(TABLES)}, or a folder of classes")
    try:
        return [row for row in csv.reader(line + "\n" for line in read_lines(path, counts)) if any(row)]
    except csv.Error as error:
        raise BadDataError(f"{path}: no table with commas ({error}); is a quote not closed?") from None


def read_json_lines(path: Path, counts: Counts | None = None) -> list[dict[str, Any]]:
    """Objects of JSON, one a line, whatever the file is called.

    Raises:
        BadDataError: a line that is none.
    """
    rows = []
    for number, line in enumerate(read_lines(path, counts), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise BadDataError(f"{path}: line {number} is no JSON ({error})") from None
    return rows
