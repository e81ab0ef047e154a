"""Rows of two or three texts that belong together, such as a sentence, one that follows from it, and one that contradicts it."""

from pathlib import Path
from typing import Any, NamedTuple

from selfsup.data.errors import BadDataError
from selfsup.data.text.documents import text_suffix
from selfsup.data.text.rows import TABLES, read_rows


class Related(NamedTuple):
    """What was read: n texts in every row, 2 or 3, and how many rows were left out because a text was missing."""

    rows: list[tuple[str, ...]]
    left_out: int


def read_related(data: Any, column: str = "text") -> Related:
    """Every row of a file.

    Args:
        data: a list of tuples, or a path to .tsv, .csv (each with or without a header), .jsonl or .parquet, each but the last also as .gz.
        column: names of the two or three columns, with commas; left at "text", the rows of .tsv and .csv are taken as they are, and have
            two or three columns.

    Raises:
        ValueError: no such file or columns, or rows of another number of texts.
        BadDataError: no row with all of its texts.
    """
    columns = [name.strip() for name in column.split(",")] if column != "text" else []
    if columns and len(columns) not in (2, 3):
        raise ValueError(f'--column must name two or three columns with commas between them, got "{column}"')
    if isinstance(data, list | tuple) and any(isinstance(row, str) for row in data):
        raise ValueError("expected rows of two or three texts that belong together, got a list of single texts")
    rows = [
        [str(text or "") for text in row] for row in (data if isinstance(data, list | tuple) else _read(Path(data).expanduser(), columns))
    ]
    n = len(columns) or max(map(len, rows), default=0)
    if rows and n not in (2, 3):
        raise ValueError(
            f"{_called(data)}: expected rows of two or three texts, got one with {n}; "
            "name their columns with --column first,second or first,second,contradiction"
        )
    kept = [tuple(row) for row in rows if len(row) == n and all(text.strip() for text in row)]
    if not kept:
        raise BadDataError(f"{_called(data)} holds no row with all of its texts ({len(rows)} rows)")
    return Related(kept, len(rows) - len(kept))


def _called(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "list"


def _read(path: Path, columns: list[str]) -> list[list[Any]]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; expected rows of texts that belong together, in {', '.join(TABLES)}")
    if text_suffix(path) not in TABLES:
        raise ValueError(f"{path}: expected rows of texts that belong together, in {', '.join(TABLES)} or .gz of them")
    rows: list[Any] = read_rows(path)
    if rows and isinstance(rows[0], list):
        if not columns:
            return rows
        head, *rows = rows
        rows = [dict(zip(head, row, strict=False)) for row in rows]
        there = head
    else:
        there = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    missing = [name for name in columns if name not in there]
    if missing or not columns:
        wrong = f'a column "{missing[0]}"' if missing else "names of columns"
        raise ValueError(f"{path}: expected {wrong}; there are {', '.join(there)}: choose two or three with --column first,second")
    return [[row.get(name) for name in columns] if isinstance(row, dict) else [] for row in rows]
