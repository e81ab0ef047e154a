"""Tables as data: which columns are numbers, which are categories, which are left out, and every row as a few numbers and codes.

Numbers are numeric; strings and booleans are categories. In CSV, where all is text, a column is numeric if all of its values are numbers
("1,200" is not one). Missing are, in any case of letters: nothing, NA, N/A, NaN, null and ?. Left out, and reported: columns of text in
which no value comes twice, as names and ids, columns of numbers that only count the rows, columns without any value, dates.

A column that is called label, labels, class, fine_label or target holds the classes, or the one that "table.csv?label=COLUMN" names;
"table.csv?label=" says that none does.

Axes: N rows, n numbers, c categories.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from selfsup.data.errors import BadDataError, Skipped
from selfsup.data.files.listing import Listing, Names
from selfsup.data.tables.schema import LEVELS, Column, Schema

MISSING = frozenset(["", "na", "n/a", "nan", "null", "?"])
LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "target")
_MOST_TEXTS = 65_536  # that are told apart in a column; a million ids would take 100 MB, and none could be among the most frequent
_LIKE_NUMBERS = re.compile(r"[-+$€£]?\s?\d[\d.,' _]*\s?[%€]?")

Values = list[str] | np.ndarray


@runtime_checkable
class Reader(Protocol):
    """A file of rows; `typed` says of columns "number", "category", or why they cannot be used, where the file itself knows."""

    names: tuple[str, ...]
    typed: dict[str, str]
    skipped: list[Skipped]
    refused: int
    origin: str
    fingerprint: str
    nbytes: int

    def chunks(self, wanted: set[str]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Numbers of some rows (n,), and for each wanted column n texts, or n float64 with NaN for missing."""
        ...


@dataclass(frozen=True)
class TableSource:
    """A table in memory: 4 bytes a number, 1 byte a category.

    Attributes:
        numbers: (N, n) float32, NaN where missing.
        codes: (N, c) uint8, place within the block.
        bad: rows that cannot be used, and why.
    """

    listing: Listing
    schema: Schema
    numbers: np.ndarray
    codes: np.ndarray
    bad: dict[int, str]


class _NotANumberError(ValueError):
    def __init__(self, text: str, row: int) -> None:
        super().__init__(text)
        self.text, self.row = text, row


class _Numbers:
    """Collects a column of numbers."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, rows: np.ndarray, values: Values) -> None:
        self.parts.append(values if isinstance(values, np.ndarray) else to_numbers(values, rows))

    def joined(self) -> np.ndarray:
        return np.concatenate(self.parts) if self.parts else np.empty(0)


class _Texts:
    """Collects a column of texts as codes into `levels`: -1 missing, -2 one too many to be told apart."""

    def __init__(self, levels: tuple[str, ...] | None = None) -> None:
        self.levels, self.counts, self.codes = list(levels or ()), np.zeros(0, np.int64), []
        self._fixed = levels is not None
        self._known: dict[str, int] = {text: i for i, text in enumerate(self.levels)}

    def add(self, rows: np.ndarray, values: Values) -> None:
        texts = values if isinstance(values, list) else [_as_text(v) for v in values.tolist()]
        codes = np.fromiter((self._known[t] if t in self._known else self._new(t) for t in texts), np.int32, len(texts))
        found = np.bincount(codes[codes >= 0], minlength=len(self.levels))
        found[: len(self.counts)] += self.counts
        self.counts = found
        self.codes.append(codes)

    def _new(self, text: str) -> int:
        clean = text.strip()
        if clean.lower() in MISSING:
            code = -1
        elif clean in self._known:
            code = self._known[clean]
        elif self._fixed or len(self.levels) >= _MOST_TEXTS:
            return -2
        else:
            code = self._known[clean] = len(self.levels)
            self.levels.append(clean)
        self._known[text] = code
        return code

    def joined(self) -> np.ndarray:
        return np.concatenate(self.codes) if self.codes else np.empty(0, np.int32)


def to_numbers(values: list[str], rows: np.ndarray) -> np.ndarray:
    """Texts -> float64, NaN where missing.

    Raises:
        _NotANumberError: one is neither a number nor missing; with its row.
    """
    try:
        numbers = np.fromiter(map(float, values), np.float64, len(values))
        if "_" not in "".join(values):  # which Python takes for a separator of thousands
            return numbers
    except ValueError:
        pass
    texts = ["nan" if v.strip().lower() in MISSING else v for v in values]
    for i, text in enumerate(texts):
        if "_" in text or not _is_number(text):
            raise _NotANumberError(text.strip(), int(rows[i]))
    return np.array([float(text) for text in texts])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_text(value: float) -> str:
    return "" if math.isnan(value) else str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def read_table(reader: Reader, schema: Schema | None = None, label: str | None = None) -> TableSource:
    """Every row of a table.

    Args:
        reader: of a file.
        schema: of the run that the table is for; None to learn it from the table.
        label: column of the classes; empty for none, None for one with a usual name.
    Raises:
        ValueError: a column that the schema asks for is not there, or holds no numbers where it should; no such label column; nothing left.
        BadDataError: no rows.
    """
    label, why = _label_column(reader, schema, label)
    kinds = _expected(reader, schema, label)
    collected, rows = _collect(reader, kinds, label, schema)
    if not len(rows):
        first = f"; {reader.skipped[0].name}: {reader.skipped[0].reason}" if reader.skipped else ""
        raise BadDataError(f"{reader.origin} has names of columns but no rows that can be used{first}")
    labels, classes, is_label = _classes(collected.pop(label), label, why, reader) if label else (None, (), True)
    notes: list[Skipped] = [] if is_label else [Skipped(f'column "{label}"', "numbers under the name of a label: neither class nor input")]
    unused = {name: reason for name, reason in reader.typed.items() if reason not in ("number", "category")}
    if schema is None:
        notes += [Skipped(f'column "{name}"', f"left out: {reason}") for name, reason in unused.items() if name != label]
        schema = Schema(tuple(_learn(collected, notes)), label if is_label else None)
        if not schema.columns:
            reasons = "; ".join(f"{note.name} {note.reason}" for note in notes)
            raise ValueError(f"{reader.origin} has no column to learn from: {reasons}")
    else:
        extra = [name for name in reader.names if name not in kinds and name != label]
        notes += [Skipped(f'column "{name}"', "left out: the run was not trained on it") for name in extra]
    numbers, codes = _encoded(schema, collected, len(rows))
    infinite = np.isinf(numbers)
    names = [column.name for column in schema.columns if column.levels is None]
    bad = {int(i): f'column "{names[int(infinite[i].argmax())]}" is infinite' for i in np.flatnonzero(infinite.any(axis=1))}
    origin = reader.origin
    listing = Listing(
        Names.of(b"row %d" % i for i in rows.tolist()),
        labels,
        classes,
        (*notes, *reader.skipped),
        reader.refused,
        reader.fingerprint,
        origin if why is None else f"{origin}?label={why}",
        reader.nbytes,
    )
    return TableSource(listing, schema, numbers, codes, bad)


def _label_column(reader: Reader, schema: Schema | None, asked: str | None) -> tuple[str | None, str | None]:
    """(the column or None, what the user asked for)."""
    if asked:
        if asked not in reader.names:
            raise ValueError(f'{reader.origin} has no column "{asked}" for the classes; it has {_some(reader.names)}')
        return asked, asked
    if asked is not None:
        return None, asked
    if schema is not None:
        return (schema.label if schema.label in reader.names else None), None
    return next((name for usual in LABEL_COLUMNS for name in reader.names if name.lower() == usual), None), None


def _expected(reader: Reader, schema: Schema | None, label: str | None) -> dict[str, str]:
    """What each column to be read should hold; everything is a number until a value says otherwise."""
    if schema is None:
        kinds = {name: reader.typed.get(name, "number") for name in reader.names if name != label}
        return {name: kind for name, kind in kinds.items() if kind in ("number", "category")}
    absent = [column.name for column in schema.columns if column.name not in reader.names]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise ValueError(f'{reader.origin} has no column "{absent[0]}"{more}, which the run was trained on; it has {_some(reader.names)}')
    return {column.name: "number" if column.levels is None else "category" for column in schema.columns}


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _collect(reader: Reader, kinds: dict[str, str], label: str | None, schema: Schema | None) -> tuple[dict[str, Any], np.ndarray]:
    """One pass; a second one where a column has turned out late to be text."""
    levels = {column.name: column.levels for column in schema.columns} if schema else {}
    columns: dict[str, Any] = {name: _Numbers() if kind == "number" else _Texts(levels.get(name)) for name, kind in kinds.items()}
    if label:
        columns[label] = _Texts()
    found: list[np.ndarray] = []
    late: set[str] = set()
    for rows, values in reader.chunks(set(columns)):
        for name in columns.keys() - late:
            try:
                columns[name].add(rows, values[name])
            except _NotANumberError as error:
                if schema is not None:
                    raise ValueError(
                        f'{reader.origin}, row {error.row} (the first after the header is row 0): "{error.text}" in column "{name}" '
                        "is no number, as it was in the table that the run was trained on"
                    ) from None
                if found:
                    late.add(name)
                else:
                    columns[name] = _Texts()
                    columns[name].add(rows, values[name])
        found.append(rows)
    if late:
        return _collect(reader, kinds | dict.fromkeys(late, "category"), label, schema)
    return columns, np.concatenate(found) if found else np.empty(0, np.int64)


def _learn(collected: Mapping[str, Any], notes: list[Skipped]) -> Iterator[Column]:
    """The columns that are worth keeping; says of the others why not."""
    for name, column in collected.items():
        why = _useless(column)
        if why:
            notes.append(Skipped(f'column "{name}"', f"left out: {why}"))
        elif isinstance(column, _Numbers):
            yield Column(name)
        else:
            order = np.argsort(-column.counts, kind="stable")[:LEVELS]  # of equally frequent ones those that came first
            levels = tuple(column.levels[i] for i in order)
            if len(column.levels) > LEVELS:
                most = "more than " if len(column.levels) >= _MOST_TEXTS else ""
                notes.append(Skipped(f'column "{name}"', f"{most}{len(column.levels)} levels; the {LEVELS} most frequent are told apart"))
            alike = [text for text in levels if _LIKE_NUMBERS.fullmatch(text)]
            if 2 * len(alike) >= len(levels):
                notes.append(Skipped(f'column "{name}"', f'a category, for not all of it are plain numbers ("{alike[0]}", for instance)'))
            yield Column(name, levels)


def _useless(column: _Numbers | _Texts) -> str | None:
    if isinstance(column, _Texts):
        if not column.levels:
            return "no values"
        return f"{len(column.levels)} different texts, none of them twice" if len(column.levels) > 1 and column.counts.max() == 1 else None
    values = column.joined()
    if np.isnan(values).all():
        return "no values"
    return "it counts the rows" if len(values) > 2 and bool((np.diff(values) == 1).all()) and values[0] in (0, 1) else None


def _encoded(schema: Schema, collected: Mapping[str, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, n) float32 and (N, c) uint8; frees what was collected as it goes."""
    numeric = [column for column in schema.columns if column.levels is None]
    categories = [column for column in schema.columns if column.levels is not None]
    numbers, codes = np.empty((rows, len(numeric)), np.float32), np.empty((rows, len(categories)), np.uint8)
    with np.errstate(over="ignore"):  # becomes infinite, and the row is refused
        for i, column in enumerate(numeric):
            numbers[:, i] = collected[column.name].joined()
    for i, column in enumerate(categories):
        assert column.levels is not None
        texts: _Texts = collected[column.name]
        place = {text: k for k, text in enumerate(column.levels)}
        other, missing = len(column.levels), len(column.levels) + 1
        table = np.array([*(place.get(text, other) for text in texts.levels), other, missing], np.uint8)
        codes[:, i] = table[texts.joined()]  # -1, missing, and -2, other, count from the end
    return numbers, codes


def _classes(texts: _Texts, name: str, asked: str | None, reader: Reader) -> tuple[np.ndarray | None, tuple[str, ...], bool]:
    """(labels, classes, whether they are classes at all)."""
    values = [float(text) if _is_number(text) else math.nan for text in texts.levels]
    numeric = bool(values) and not any(math.isnan(v) for v in values)
    if len(texts.levels) >= _MOST_TEXTS or (numeric and any(not v.is_integer() for v in values)):
        if asked:
            raise ValueError(f'{reader.origin}: column "{name}" must hold classes, got numbers such as "{texts.levels[0]}"')
        return None, (), False
    names = [str(int(v)) for v in values] if numeric else texts.levels
    classes = sorted(set(names), key=int if numeric else None)
    number = {text: i for i, text in enumerate(classes)}
    table = np.array([*(number[text] for text in names), -1, -1], np.int64)
    return table[texts.joined()], tuple(classes), True
