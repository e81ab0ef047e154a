"""open_text and open_sentences: from whatever the user points at to `Items` of token numbers."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfsup.data.cache import cache_root, entry
from selfsup.data.errors import BadDataError, Skipped
from selfsup.data.items import Items
from selfsup.data.text.documents import PLAIN, SUFFIXES, Corpus, Counts, open_corpus, text_suffix
from selfsup.data.text.related import read_related
from selfsup.data.text.rows import read_lines, read_rows
from selfsup.data.text.tokenizer import KINDS, Kind, Tokenizer, load_tokenizer, train_tokenizer
from selfsup.data.text.tokens import Layout, Sentences, TextStore, lay_out, tokenise

SHOWN = 80  # characters of an item that stand for its name


class Excerpts(Sequence[str]):
    """What items of a corpus are called: their first words."""

    def __init__(self, store: TextStore, tokenizer: Tokenizer, rows: np.ndarray) -> None:
        self._store, self._tokenizer, self._rows = store, tokenizer, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        ids = self._store.gather(self._rows[[i]])[0][: 2 * SHOWN].tolist()
        return " ".join(self._tokenizer.decode(ids).split())[:SHOWN]


def open_text(
    data: Any,
    *,
    tokenizer: str | Path | Tokenizer,
    layout: Layout,
    length: int,
    vocabulary_size: int = 8192,
    min_count: int = 2,
    lowercase: bool | None = None,
    column: str = "text",
    documents: Literal["blank_lines", "file"] = "blank_lines",
    max_bad: float = 0.01,
    cache_dir: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Items:
    """A corpus as items of equal length: read, cut into tokens once, and kept in a memory-mapped cache.

    Args:
        data: see `selfsup.data.text.documents.open_corpus`; of layout "related" `selfsup.data.text.related.read_related`.
        tokenizer: wordpiece, bpe, character or word to learn one from this text, a path to a tokenizer.json, or one that is loaded.
        layout: how items are put together, see `selfsup.data.text.tokens.TextStore`.
        length: T, tokens in an item.
        vocabulary_size: most tokens of a tokenizer that is learned.
        min_count: of a tokenizer that is learned, see `train_tokenizer`.
        lowercase: of a tokenizer that is learned, see `train_tokenizer`.
        column: of JSON and parquet; of layout "related" two or three with commas.
        documents: what ends a document in plain text.
        max_bad: fraction of characters, 0 to 1, that may be unreadable bytes.
        cache_dir: as for `open_data`.
        progress: called with (what, done, total).

    Raises:
        BadDataError: no text, or too much of it is unreadable.
        ValueError: arguments out of range, or data of a kind that is not text.
    """
    by_lines = layout == "lines"

    def learned(corpus: Corpus) -> Tokenizer:
        if isinstance(tokenizer, Tokenizer):
            return tokenizer
        if progress is not None:
            progress("vocabulary", 0, 1)
        return _tokenizer(corpus, str(tokenizer), vocabulary_size, min_count, lowercase, by_lines, cache_dir)

    if layout == "related":
        return _open_related(data, learned, length, column)
    corpus = open_corpus(data, column=column, split=documents)
    tokenizer = learned(corpus)
    if progress is not None:
        progress("tokens", 0, 1)
    found = tokenise(corpus, tokenizer, by_lines=by_lines, cache_dir=cache_dir)
    counts = corpus.counts
    if counts.replaced > max_bad * max(counts.characters, 1):
        raise BadDataError(
            f"{counts.replaced:,} places of {counts.characters:,} characters in {corpus.origin} are no UTF-8 (allowed {max_bad:.1%}); "
            "convert the files, or allow more with --max-bad"
        )
    store, cut = lay_out(found, tokenizer, layout, length)
    rows = np.arange(len(store.first) - 1)
    if not len(rows):
        raise BadDataError(f"{corpus.origin} holds {len(found.tokens.array)} tokens, too few for one item of {length} ({layout})")
    said = {
        f"{counts.replaced:,} unreadable places became U+FFFD": counts.replaced,
        f"{counts.nuls:,} NUL characters were dropped": counts.nuls,
        f'{counts.rows:,} rows without text in "{column}" were left out': counts.rows,
        f"{cut:,} sentences were cut to {length - 2} tokens": cut,
    }
    skipped = [*corpus.skipped, *(Skipped("(all files)", reason) for reason, n in said.items() if n)]
    return _items(store, tokenizer, rows, corpus.origin, corpus.fingerprint(), skipped, Excerpts(store, tokenizer, rows), None, ())


def _open_related(data: Any, learned: Callable[[Corpus], Tokenizer], length: int, column: str) -> Items:
    """Items of two or three texts each; they are tokenised in memory."""
    rows, left_out = read_related(data, column)
    origin = str(Path(data).expanduser().resolve()) if isinstance(data, str | Path) else "list"
    flat = [text for row in rows for text in row]
    corpus = Corpus([], origin, texts=tuple(flat))
    tokenizer, n = learned(corpus), len(rows[0])
    store, cut = _in_memory(flat, tokenizer, length, "related", n)
    said = {f"{cut:,} texts were cut to {length - 2} tokens": cut, f"{left_out:,} rows without all {n} texts were left out": left_out}
    skipped = [Skipped("(all)", reason) for reason, count in said.items() if count]
    shown = [" ".join(row[0].split())[:SHOWN] for row in rows]
    return _items(store, tokenizer, np.arange(len(rows)), origin, corpus.fingerprint(), skipped, shown, None, ())


def _tokenizer(
    corpus: Corpus, kind: str, size: int, min_count: int, lowercase: bool | None, by_lines: bool, cache_dir: Path | None
) -> Tokenizer:
    if kind not in KINDS:
        return load_tokenizer(kind)
    known: Kind = kind  # type: ignore[assignment]

    def build(folder: Path) -> None:
        parts = Sentences(corpus, by_lines)
        made = train_tokenizer(parts, known, vocabulary_size=size, lowercase=lowercase, min_count=min_count)
        made.save(folder / "tokenizer.json")

    how = f"{kind}-{size}-{min_count}-lower{lowercase}-{'lines' if by_lines else 'sentences'}"
    key = f"{corpus.fingerprint()}-{corpus.split}-{how}-v3"
    return load_tokenizer(entry(cache_root(cache_dir), key, build))


def open_sentences(data: Any, *, tokenizer: Tokenizer, length: int, column: str = "text", label: str = "label") -> Items:
    """Texts one by one, with labels where there are some: what an encoder of text is used and scored on.

    Args:
        data: a list of strings; .txt, a text a line; .tsv or .csv, text and perhaps label in every row, without a header unless it names
            `column`; .jsonl or .parquet with these columns; each also as .gz but parquet; or a folder with a folder for each class.
        tokenizer: of the encoder.
        length: T, most tokens of a text; what is longer is cut, counted and reported.
        column, label: names of the columns.

    Raises:
        ValueError: there is nothing, or it is of another kind.
        BadDataError: no text in it.
    """
    counts, skipped = Counts(), list[Skipped]()
    origin, pairs = "list", [(str(text), None) for text in data] if isinstance(data, list | tuple) else []
    if isinstance(data, str | Path):
        path = Path(data).expanduser()
        if not path.exists():
            raise ValueError(f"there is no {path}")
        origin, pairs = str(path.resolve()), list(labelled_texts(path, column, label, counts, skipped))
    kept = [(text, name) for text, name in pairs if text.strip()]
    if not kept:
        raise BadDataError(f"no text in {origin}" + "".join(f"; {s.name}: {s.reason}" for s in skipped[:5]))
    store, cut = _in_memory([text for text, _ in kept], tokenizer, length, "sentences", 1)
    classes = tuple(sorted({name for _, name in kept if name is not None}))
    numbers = {name: i for i, name in enumerate(classes)}
    labels = np.array([-1 if name is None else numbers[name] for _, name in kept], np.int64) if classes else None
    empty = len(pairs) - len(kept)
    said = {
        f"{counts.replaced:,} unreadable places became U+FFFD": counts.replaced,
        f"{counts.nuls:,} NUL characters were dropped": counts.nuls,
        f"{cut:,} texts were cut to {length - 2} tokens": cut,
        f"{empty:,} empty texts were left out": empty,
    }
    skipped += [Skipped("(all)", reason) for reason, n in said.items() if n]
    digest = hashlib.blake2b(json.dumps(kept).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    shown = [" ".join(text.split())[:SHOWN] for text, _ in kept]
    return _items(store, tokenizer, np.arange(len(kept)), origin, digest, skipped, shown, labels, classes)


def _in_memory(texts: Sequence[str], tokenizer: Tokenizer, length: int, layout: Layout, n: int) -> tuple[TextStore, int]:
    """Items of n texts each, and how many texts were cut to fit."""
    ids = tokenizer.encode(texts)
    lengths = np.array([min(len(x), length - 2) for x in ids], np.int64)
    tokens = np.concatenate([x[:m] for x, m in zip(ids, lengths, strict=True)])
    starts, first = np.cumsum(lengths) - lengths, np.arange(0, len(texts) + 1, n)
    store = TextStore(tokens, starts, lengths, first, length, layout, tokenizer.start, tokenizer.end, tokenizer.pad)
    return store, sum(len(x) > length - 2 for x in ids)


def _items(
    store: TextStore,
    tokenizer: Tokenizer,
    rows: np.ndarray,
    origin: str,
    fingerprint: str,
    skipped: Sequence[Skipped],
    names: Sequence[str],
    labels: np.ndarray | None,
    classes: tuple[str, ...],
) -> Items:
    return Items(
        kind="text",
        shape=(store.length,),
        image_size=0,
        labels=labels,
        classes=classes,
        names=names,
        skipped=tuple(skipped),
        fingerprint=fingerprint,
        source=origin,
        store=store,
        rows=rows,
        sizes=None,
        tokenizer=tokenizer,
    )


def labelled_texts(
    path: Path, column: str, label: str, counts: Counts | None = None, skipped: list[Skipped] | None = None
) -> Iterator[tuple[str, str | None]]:
    """(text, class or None) of every row, line or file; what is met and left out on the way goes into `counts` and `skipped`."""
    counts, skipped = Counts() if counts is None else counts, [] if skipped is None else skipped
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
            parts = file.relative_to(path).parts
            if text_suffix(file) not in SUFFIXES:
                skipped.append(Skipped(file.relative_to(path).as_posix(), f"not text: {file.suffix or 'no suffix'}"))
                continue
            corpus = open_corpus(file, column=column, split="file")
            yield "".join(piece.text for piece in corpus), parts[-2] if len(parts) > 1 else None
            skipped += corpus.skipped
            counts.replaced, counts.nuls = counts.replaced + corpus.counts.replaced, counts.nuls + corpus.counts.nuls
        return
    if text_suffix(path) in PLAIN:
        yield from ((line, None) for line in read_lines(path, counts))
        return
    rows = read_rows(path, counts)
    if rows and isinstance(rows[0], list) and column in rows[0]:
        rows = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    if not rows or isinstance(rows[0], dict):
        yield from _rows(rows, column, label, path)
        return
    wide = sum(len(row) > 2 for row in rows)
    if wide:
        raise ValueError(f'{path}: {wide} rows have more than text and label; name the columns in a header with "{column}" in it')
    yield from ((row[0], row[1] if len(row) > 1 else None) for row in rows)


def _rows(rows: Any, column: str, label: str, path: Path) -> Iterator[tuple[str, str | None]]:
    for row in rows:
        if not isinstance(row, dict) or column not in row:
            there = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f'{path}: a row without a column "{column}"; there are {there}: choose with --column')
        yield str(row[column] or ""), None if row.get(label) is None else str(row[label])
