"""Text on disk -> a stream of documents, in memory that does not grow with the corpus.

Read: .txt, .text and .md (documents separated by blank lines), .jsonl and .parquet (a document a row, from a named column), .conllu, each
also as .gz but parquet, and folders of them. Nothing is refused for a few bad bytes: they are replaced, counted and reported.
"""

import codecs
import gzip
import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfsup.data.errors import BadDataError, Skipped

PIECE = 1 << 20
"""Characters of a document that are handed on together, at most."""
LONGEST_ROW = 64 << 20
"""Bytes of a line of JSON; a longer one is left out and reported."""
PLAIN = (".txt", ".text", ".md")
SUFFIXES = (*PLAIN, ".jsonl", ".conllu", ".parquet")
KINDS = f"{', '.join(SUFFIXES)}, or .gz of them"
_BLANK = re.compile(r"\n[ \t\f\v]*(?:\n[ \t\f\v]*)+")
_DAMAGED = (OSError, EOFError, zlib.error)
_counted = threading.local()


class Piece(NamedTuple):
    """A part of a document: no more than `PIECE` characters."""

    text: str
    last: bool  # the document ends here


@dataclass
class Counts:
    """What a pass over a corpus has met.

    Attributes:
        documents, characters: that were read.
        replaced: bad bytes that became U+FFFD.
        nuls: NUL characters that were dropped.
        rows: rows of JSON or parquet without text, left out.
    """

    documents: int = 0
    characters: int = 0
    replaced: int = 0
    nuls: int = 0
    rows: int = 0


@dataclass
class Corpus:
    """Files of text, in the order of their names.

    Attributes:
        files: paths.
        origin: absolute path of what the user named, or "list".
        column: of JSON and parquet.
        split: what ends a document of plain text: "blank_lines", or only the end of its "file", so that no character is lost.
        texts: documents in memory, instead of files.
        skipped: what was left out and why; grows when a file turns out to be damaged.
        counts: of the last complete pass.
    """

    files: list[Path]
    origin: str
    column: str = "text"
    split: Literal["blank_lines", "file"] = "blank_lines"
    texts: tuple[str, ...] = ()
    skipped: list[Skipped] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def __iter__(self) -> Iterator[Piece]:
        """Every piece of every document, in order.

        Raises:
            BadDataError: there is no text in any of it.
        """
        counts = Counts()
        known = len(self.skipped)
        for document in self.texts:
            yield from _counting(_pieces([document], self.split), counts)
        for path in self.files:
            try:
                yield from _counting(_read(path, self.column, self.split, counts), counts)
            except _DAMAGED as error:
                self._skip(path, f"damaged after {counts.characters:,} characters of the corpus: {error}")
        if counts.documents == 0:
            said = "; ".join(f"{s.name}: {s.reason}" for s in self.skipped[:5])
            raise BadDataError(f"no text in {self.origin}" + (f" ({said})" if said else ""))
        self.counts, self.skipped = counts, self.skipped[:known] + [s for s in self.skipped[known:] if s not in self.skipped[:known]]

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append(Skipped(str(path), reason))

    def remember(self, counts: Mapping[str, int], skipped: Iterable[Sequence[str]]) -> None:
        """Take over what an earlier pass has met."""
        self.counts = Counts(**counts)
        self.skipped = [Skipped(*pair) for pair in skipped]

    def fingerprint(self) -> str:
        """Hex digest of all bytes, names and the column."""
        digest = hashlib.blake2b(self.column.encode(), digest_size=16)
        for text in self.texts:
            digest.update(f"{len(text)}:".encode() + text.encode("utf-8", "surrogatepass"))
        for path in self.files:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode("utf-8", "surrogatepass"))
            with path.open("rb") as file:
                while block := file.read(PIECE):
                    digest.update(block)
        return digest.hexdigest()


def open_corpus(data: Any, *, column: str = "text", split: Literal["blank_lines", "file"] = "blank_lines") -> Corpus:
    """Find the files; nothing is read yet.

    Args:
        data: a file, a folder nested to any depth, a list of paths, or a list of documents.
        column: of JSON and parquet that holds the text.
        split: what ends a document of plain text, see `Corpus`.

    Raises:
        ValueError: nothing is there, or of a kind that is not text.
        BadDataError: a folder without text.
    """
    if isinstance(data, list | tuple) and data:
        if all(isinstance(x, str) for x in data) and not any(Path(x).suffix in (*SUFFIXES, ".gz") for x in data):
            return Corpus([], "list", column, split, texts=tuple(data))
        return Corpus([_checked(Path(x)) for x in data], "list", column, split)
    if not isinstance(data, str | os.PathLike):
        raise ValueError(f"expected text: a path to {KINDS}, a folder of them, or a list of strings; got {type(data).__name__}")
    path = Path(data).expanduser()
    if path.is_file():
        return Corpus([_checked(path)], str(path.resolve()), column, split)
    if not path.is_dir():
        raise ValueError(f"there is no {path}; expected {KINDS}, or a folder of them")
    corpus = Corpus([], str(path.resolve()), column, split)
    for found in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if text_suffix(found) in SUFFIXES:
            corpus.files.append(found)
        else:
            corpus.skipped.append(Skipped(found.relative_to(path).as_posix(), f"not text: {found.suffix or 'no suffix'}"))
    if not corpus.files:
        raise BadDataError(f"no text in {path}; expected files of {KINDS}, found {len(corpus.skipped)} others")
    return corpus


def text_suffix(path: Path) -> str:
    """What kind of file it is, inside its compression."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if text_suffix(path) not in SUFFIXES:
        raise ValueError(f"{path}: expected {KINDS}")
    return path


def _read(path: Path, column: str, split: str, counts: Counts) -> Iterator[Piece]:
    kind = text_suffix(path)
    if kind == ".parquet":
        yield from _parquet(path, column, counts)
        return
    with open_bytes(path) as file:
        if kind == ".jsonl":
            yield from _jsonl(file, path, column, counts)
        elif kind == ".conllu":
            yield from _conllu(file, counts)
        else:
            yield from _pieces(decoded(file, counts), split)


def open_bytes(path: Path) -> BufferedIOBase:
    """Its bytes, without compression."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _counting(pieces: Iterable[Piece], counts: Counts) -> Iterator[Piece]:
    for piece in pieces:
        counts.documents += piece.last
        counts.characters += len(piece.text)
        yield piece


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    _counted.bytes = getattr(_counted, "bytes", 0) + 1
    return "\ufffd", error.end


codecs.register_error("selfsup.count", _replace)


def decoded(file: BufferedIOBase, counts: Counts) -> Iterator[str]:
    """Blocks of characters: UTF-8, or UTF-16 where a byte-order mark says so; line ends are newlines, NULs are gone."""
    start = file.read(PIECE)
    name = "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    decoder = codecs.getincrementaldecoder(name)(errors="selfsup.count")
    carry, block = "", start
    while True:
        _counted.bytes = 0
        text = carry + decoder.decode(block, final=not block)
        counts.replaced += _counted.bytes
        carry = "\r" if block and text.endswith("\r") else ""  # half of a line end, perhaps
        text = text[: len(text) - len(carry)]
        counts.nuls += text.count("\0")
        yield text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
        if not block:
            return
        block = file.read(PIECE)


def _pieces(blocks: Iterable[str], split: str) -> Iterator[Piece]:
    """Cut a stream of characters at blank lines, if they count; what is longer than a piece, at a line's end or between words."""
    kept, begun = "", False  # begun: a part of this document has been handed on
    for block in blocks:
        *documents, kept = _BLANK.split(kept + block) if split == "blank_lines" else [kept + block]
        for document in documents:
            if document.strip() or begun:
                yield from _cut(document, last=True)
            begun = False
        if len(kept) >= PIECE:
            *parts, rest = (piece.text for piece in _cut(kept, last=True))
            yield from (Piece(part, last=False) for part in parts)
            kept, begun = rest, begun or bool(parts)
    if kept.strip() or begun:
        yield from _cut(kept, last=True)


def _cut(text: str, *, last: bool) -> Iterator[Piece]:
    while len(text) > PIECE:
        end = max(text.rfind("\n", 0, PIECE), text.rfind(" ", PIECE // 2, PIECE)) + 1 or PIECE
        yield Piece(text[:end], last=False)
        text = text[end:]
    yield Piece(text, last)


def _jsonl(file: BufferedIOBase, path: Path, column: str, counts: Counts) -> Iterator[Piece]:
    seen: set[str] = set()
    found = False
    while line := file.readline(LONGEST_ROW):
        if not line.endswith(b"\n") and len(line) == LONGEST_ROW:
            while rest := file.readline(LONGEST_ROW):
                if rest.endswith(b"\n"):
                    break
            counts.rows += 1
            continue
        if not line.strip():
            continue
        _counted.bytes = 0
        try:
            row = json.loads(line.decode("utf-8-sig", errors="selfsup.count"))
        except ValueError:
            row = None
        counts.replaced += _counted.bytes
        value = row.get(column) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            seen |= set(row) if isinstance(row, dict) and len(seen) < 20 else set()
            counts.rows += 1
            continue
        found = True
        yield from _one(value, counts)
    if not found and seen:
        raise ValueError(f'{path}: no row has text in a column "{column}"; there are {", ".join(sorted(seen))}: choose with --column')


def _one(text: str, counts: Counts) -> Iterator[Piece]:
    """A document that may hold blank lines of its own."""
    counts.nuls += text.count("\0")
    yield from _cut(text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n"), last=True)


def _parquet(path: Path, column: str, counts: Counts) -> Iterator[Piece]:
    for row in parquet_rows(path, (column,)):
        if column not in row:
            raise ValueError(f'{path}: no column "{column}"; there are {", ".join(row)}: choose with --column')
        if isinstance(row[column], str) and row[column].strip():
            yield from _one(row[column], counts)
        else:
            counts.rows += 1


def parquet_rows(path: Path, columns: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows with those of the columns that are there; with all, where none of them is, or none is named.

    Raises:
        ValueError: pyarrow is not installed.
        OSError: not parquet, or damaged.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow; install selfsup[data]") from None
    try:
        file = pq.ParquetFile(path)
        there = [name for name in file.schema_arrow.names if name in columns] or None
        for batch in file.iter_batches(batch_size=256, columns=there):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise OSError(f"not parquet, or damaged: {error}") from None


def lines_of(blocks: Iterable[str]) -> Iterator[str]:
    """Blocks of characters -> lines without their ends; nothing after the last of them is no line."""
    kept: list[str] = []
    for block in blocks:
        first, *whole = block.split("\n")
        kept.append(first)
        if whole:
            yield "".join(kept)
            *whole, last = whole
            yield from whole
            kept = [last]
    if any(kept):
        yield "".join(kept)


def _conllu(file: BufferedIOBase, counts: Counts) -> Iterator[Piece]:
    """Sentences of Universal Dependencies, one a line; a document is what follows "# newdoc", or all."""
    document: list[str] = []
    words: list[str] = []
    said = ""

    for line in chain(lines_of(decoded(file, counts)), [""]):  # the empty one ends the last sentence
        if line.startswith("# newdoc") and document:
            yield from _cut("\n".join(document), last=True)
            document = []
        elif line.startswith("# text ="):
            said = line.partition("=")[2].strip()
        elif line.strip() and not line.startswith("#"):
            words.append(line.split("\t")[1] if line.count("\t") >= 2 else line)
        elif not line.strip() and words:
            document.append(said or " ".join(words))
            words, said = [], ""
    if document:
        yield from _cut("\n".join(document), last=True)
