"""CSV files, read in pieces by the standard library's reader: tables need no further package.

What is accepted: UTF-8 (with or without a mark at its beginning), UTF-16 with a mark, else Latin-1, which is reported; gzip, bzip2 or xz
around it; comma, semicolon or tab, whichever splits the header into the most names (always a tab in .tsv); quotes, in them newlines.
"""

import codecs
import csv
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from selfsup.data.errors import BadDataError, Skipped
from selfsup.data.files.archives import open_compressed
from selfsup.data.files.listing import file_fingerprint

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_CELLS_AT_ONCE = 500_000  # some 30 MB of Python strings


class CsvReader:
    """Rows of a .csv or .tsv, again and again.

    Attributes:
        names: of the columns; one without a name is "column 3".
        skipped: rows that were left out in the last pass, and what else there is to say.
        refused: rows that were lost in the last pass.
        typed: columns whose kind the file itself says: none.
    """

    typed: dict[str, str]

    def __init__(self, path: Path) -> None:
        self.path, self.origin, self.fingerprint, self.typed = path, str(path.resolve()), file_fingerprint(path), {}
        self.nbytes = path.stat().st_size
        self._encoding, self._comma = _encoding(path), ","
        self.skipped: list[Skipped] = []
        self.refused = 0
        with self._text() as file:
            first = file.read(1 << 16)
        if not first.strip():
            raise BadDataError(f"{path} is empty; expected a row of column names and rows of values")
        name = path.name.lower()
        commas = "\t" if ".tsv" in name else ",;\t"
        self._comma = max(commas, key=lambda comma: len(next(csv.reader(io.StringIO(first), delimiter=comma))))
        header = next(csv.reader(io.StringIO(first), delimiter=self._comma, skipinitialspace=True))
        self.names = tuple(name.strip() or f"column {i + 1}" for i, name in enumerate(header))
        _check_header(self.names, path)

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_compressed(self.path), self._encoding, newline="")  # type: ignore[arg-type]

    def chunks(self, wanted: set[str]) -> Iterator[tuple[np.ndarray, dict[str, list[str]]]]:
        """Numbers of some rows (n,), the first after the header being 0, and n texts for each wanted column.

        Raises:
            BadDataError: damaged compression, or a value too long to be one.
        """
        self.skipped, self.refused = [], 0
        if self._encoding == "latin-1":
            self.skipped.append(Skipped(self.path.name, "not UTF-8, so it was read as Latin-1"))
        width, at_once = len(self.names), max(1, _CELLS_AT_ONCE // len(self.names))
        rows: list[list[str]] = []
        numbers: list[int] = []
        i, blank, before = -1, 0, 0

        def piece() -> tuple[np.ndarray, dict[str, list[str]]]:
            columns = {name: list(column) for name, column in zip(self.names, zip(*rows, strict=True), strict=True) if name in wanted}
            return np.array(numbers, np.int64), columns

        with self._text() as file:
            reader = csv.reader(file, delimiter=self._comma, skipinitialspace=True)
            try:
                next(reader)
                for row in reader:
                    lines, before = reader.line_num - before, reader.line_num
                    if not row:
                        blank += 1
                        continue
                    i += 1
                    if len(row) != width:
                        self.refused += lines
                        over = f" over {lines} lines; is a quote left open?" if lines > 1 else ""
                        self.skipped.append(Skipped(f"row {i}", f"line {before}: {len(row)} values, the header has {width}{over}"))
                        continue
                    rows.append(row)
                    numbers.append(i)
                    if len(rows) == at_once:
                        yield piece()
                        rows, numbers = [], []
            except (csv.Error, EOFError, OSError, zlib.error) as error:
                raise BadDataError(
                    f"{self.path}, after line {reader.line_num}: {error}; is a quote left open, or the file damaged?"
                ) from error
        if blank:
            self.skipped.append(Skipped("(blank)", f"{blank} lines without anything on them"))
        if rows:
            yield piece()


def _encoding(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_compressed(path) as file:
            block = file.read(1 << 20)
            if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            while block:
                decoder.decode(block)
                block = file.read(1 << 20)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "latin-1"
    except PermissionError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        raise BadDataError(f"{path} is damaged: {error}; fetch it again") from error
    return "utf-8-sig"


def _check_header(names: tuple[str, ...], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'{path}: several columns are named "{twice[0]}"; every column needs a name of its own, in the first row')
    for name in names:
        try:
            number = float(name)
        except ValueError:
            continue
        if not number.is_integer() or number < 0:
            raise ValueError(
                f'{path}: the first row must hold the names of the columns, but "{name}" seems to be a value; add a row of names'
            )
