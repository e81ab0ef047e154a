"""Token numbers in a memory-mapped file, and how they are laid out as items of equal length.

Axes: N items, T tokens of an item, P pieces of text.
"""

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.cache import cache_root, entry
from selfsup.data.text.documents import Corpus, Piece
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.method import Layout

LEAST_PIECE = 8  # tokens; less room than that at the end of a packed item stays empty
_VERSION = 2
_COUNTED = 1 << 24  # tokens at a time
# After the mark and its closing quotes, before the space: the space belongs to what follows, so that no character is lost.
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*(?=\s+[^\s.!?a-z])|(?<=[。！？])[”’」』）]*|(?=\n)")


@dataclass(frozen=True)
class Tokens:
    """A corpus as numbers.

    Attributes:
        tokens: of all documents, one after the other, END after each.
        sentences: (S, 2) where each sentence begins and ends; END belongs to none.
        documents: (D, 2) the same of documents.
    """

    tokens: "MappedTokens"
    sentences: np.ndarray
    documents: np.ndarray


class MappedTokens:
    """(n,) uint16 or uint32 in a raw file, mapped when first used and in every process anew."""

    def __init__(self, path: Path, dtype: str) -> None:
        self._path, self._dtype = path, dtype
        self.array = np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_path"], state["_dtype"])  # type: ignore[misc]


def tokenise(corpus: Corpus, tokenizer: Tokenizer, *, by_lines: bool, cache_dir: Path | None = None) -> Tokens:
    """Turn every document into numbers, once; kept in the cache.

    Args:
        corpus: text.
        tokenizer: vocabulary.
        by_lines: a sentence is a line; otherwise lines are cut further after full stops.
        cache_dir: as for `open_data`.
    """

    def build(folder: Path) -> None:
        dtype = np.uint16 if tokenizer.size <= 1 << 16 else np.uint32
        sentences, documents, begun, total = array("q"), array("q"), 0, 0
        with (folder / "tokens.bin").open("wb") as file:
            for piece in chain(corpus, [Piece("", last=True)]):  # a damaged file ends in the middle of a document
                for ids in tokenizer.encode(cut_sentences(piece.text, by_lines=by_lines)):
                    if len(ids):
                        file.write(ids.astype(dtype).tobytes())
                        sentences.extend((total, total + len(ids)))
                        total += len(ids)
                if piece.last and begun != total:
                    documents.extend((begun, total))
                    file.write(np.array(tokenizer.end, dtype).tobytes())
                    begun = total = total + 1
        np.save(folder / "sentences.npy", np.frombuffer(sentences, np.int64).reshape(-1, 2))
        np.save(folder / "documents.npy", np.frombuffer(documents, np.int64).reshape(-1, 2))
        met = {"counts": vars(corpus.counts), "skipped": [[s.name, s.reason] for s in corpus.skipped], "dtype": np.dtype(dtype).str}
        (folder / "met.json").write_text(json.dumps(met))

    key = f"{corpus.fingerprint()}-{tokenizer.fingerprint}-{'lines' if by_lines else 'sentences'}-{corpus.split}-t{_VERSION}"
    folder = entry(cache_root(cache_dir), key, build)
    met = json.loads((folder / "met.json").read_text())
    corpus.remember(met["counts"], met["skipped"])
    mapped = MappedTokens(folder / "tokens.bin", met["dtype"])
    return Tokens(mapped, np.load(folder / "sentences.npy"), np.load(folder / "documents.npy"))


def cut_sentences(text: str, *, by_lines: bool) -> list[str]:
    """Parts that joined again are the text: cut at line ends and, unless `by_lines`, after full stops that seem to end a sentence."""
    cuts = [m.start() for m in re.finditer(r"\n", text)] if by_lines else [m.end() for m in _SENTENCE_END.finditer(text)]
    edges = [0, *sorted(set(cuts) - {0, len(text)}), len(text)]
    return [text[a:b] for a, b in pairwise(edges) if a < b]


@dataclass(frozen=True)
class Sentences:
    """The sentences of a corpus, as often as one asks, for training a tokenizer."""

    pieces: Iterable[Piece]
    by_lines: bool

    def __iter__(self) -> Iterator[str]:
        """One after the other."""
        for piece in self.pieces:
            yield from cut_sentences(piece.text, by_lines=self.by_lines)


@dataclass(frozen=True, eq=False)
class TextStore:
    """Items of up to T tokens, put together from pieces of the corpus whenever they are asked for.

    Attributes:
        tokens: of the corpus.
        starts, lengths: (P,) of each piece.
        first: (N + 1,) number of each item's first piece, and P.
        length: T.
        layout: "packed": whole documents or parts of them, several in an item, each as START piece END; "sentences": one such piece;
            "pairs": START first END second END; "stream": the corpus as it runs on, documents joined by END, the last token of
            an item being the first of the next, so that each is once what follows; "related": texts that belong together, each as START
            text END with up to T tokens; "lines": sentences one after the other, END after each, as many as fit, and what is longer than
            an item in parts.
        start, end, pad: numbers of the special tokens.
    """

    tokens: MappedTokens | np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    length: int
    layout: Layout
    start: int
    end: int
    pad: int
    slow = False

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows (B,) -> (B, T) int64, filled up with padding; of sentences and related texts, T is that of the longest."""
        tokens = self.tokens.array if isinstance(self.tokens, MappedTokens) else self.tokens
        if self.layout == "stream":
            return np.stack([tokens[self.starts[row] : self.starts[row] + self.length] for row in rows]).astype(np.int64)
        one = self._lines if self.layout == "lines" else self._framed
        made = [one(tokens, slice(self.first[row], self.first[row + 1])) for row in rows]
        width = max(map(len, made)) if self.layout in ("sentences", "related") else self.length
        out = np.full((len(made), width), self.pad, np.int64)
        for row, ids in zip(out, made, strict=True):
            row[: len(ids)] = ids
        return out

    def _framed(self, tokens: np.ndarray, pieces: slice) -> np.ndarray:
        parts: list[Any] = []
        for begin, length in zip(self.starts[pieces], self.lengths[pieces], strict=True):
            if self.layout != "pairs" or not parts:
                parts.append([self.start])
            parts += [tokens[begin : begin + length], [self.end]]
        return np.concatenate(parts)

    def _lines(self, tokens: np.ndarray, pieces: slice) -> np.ndarray:
        starts, ends = self.starts[pieces], self.starts[pieces] + self.lengths[pieces]
        joined = np.append(starts[1:] == ends[:-1], True)  # where no document ends, the corpus has no END
        return np.insert(tokens[starts[0] : ends[-1]].astype(np.int64), ends[joined] - starts[0], self.end)

    def counts(self, size: int) -> np.ndarray:
        """(size,) int64: how often each token occurs in the corpus."""
        tokens = self.tokens.array if isinstance(self.tokens, MappedTokens) else self.tokens
        counts = np.zeros(size, np.int64)
        for begin in range(0, len(tokens), _COUNTED):
            counts += np.bincount(tokens[begin : begin + _COUNTED], minlength=size)
        return counts


def lay_out(found: Tokens, tokenizer: Tokenizer, layout: Layout, length: int) -> tuple[TextStore, int]:
    """The items of a corpus, and how many sentences were cut short.

    Args:
        found: the corpus.
        tokenizer: its vocabulary.
        layout: see `TextStore`.
        length: T, 8 or more.

    Raises:
        ValueError: the length, or a tokenizer without the special tokens that the layout needs.
    """
    if length < LEAST_PIECE:
        raise ValueError(f"--sequence-length must be at least {LEAST_PIECE} tokens, got {length}")
    if layout not in ("stream", "lines") and tokenizer.start < 0:
        raise ValueError("this method needs a tokenizer with a token that begins a text, such as [CLS]")
    cut = 0
    if layout == "stream":
        starts, lengths, first = _stream(found.tokens.array, length)
    elif layout == "lines":
        starts, lengths, first = _whole_lines(found, length)
    elif layout == "sentences":
        starts, lengths = found.sentences[:, 0], found.sentences[:, 1] - found.sentences[:, 0]
        cut = int((lengths > length - 2).sum())
        lengths, first = np.minimum(lengths, length - 2), np.arange(len(starts) + 1)
    else:
        starts, lengths, first = (_packed if layout == "packed" else _pairs)(found, length)
    store = TextStore(found.tokens, starts, lengths, first, length, layout, tokenizer.start, tokenizer.end, tokenizer.pad)
    return store, cut


def _stream(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts = np.arange(0, len(tokens) - length + 1, length - 1, dtype=np.int64)
    return starts, np.full(len(starts), length), np.arange(len(starts) + 1)


def _whole_lines(found: Tokens, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill items with whole sentences; one that has no room in an item of its own is cut into parts first."""
    sizes = found.sentences[:, 1] - found.sentences[:, 0]
    parts = -(-sizes // (length - 1))
    within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)  # number of a part in its sentence
    starts = np.repeat(found.sentences[:, 0], parts) + within * (length - 1)
    lengths = np.minimum(np.repeat(found.sentences[:, 1], parts) - starts, length - 1)
    edges, first = np.concatenate([[0], np.cumsum(lengths + 1)]), [0]
    while first[-1] < len(starts):
        first.append(int(np.searchsorted(edges, edges[first[-1]] + length, side="right")) - 1)
    return starts, lengths, np.array(first, np.int64)


def _packed(found: Tokens, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill items one after the other; a document that does not fit goes on in the next, with no token left out or shown twice."""
    starts, lengths, first = [], [], [0]
    room = length
    for begin, end in found.documents.tolist():
        while begin < end:
            if room < length and room - 2 < min(LEAST_PIECE, end - begin):
                first.append(len(starts))
                room = length
            taken = min(room - 2, end - begin)
            starts.append(begin)
            lengths.append(taken)
            begin += taken
            room -= taken + 2
    if first[-1] != len(starts):
        first.append(len(starts))
    return np.array(starts, np.int64), np.array(lengths, np.int64), np.array(first, np.int64)


def _pairs(found: Tokens, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring sentences of a document in two groups, as many as fit: what follows what is known."""
    starts: list[int] = []
    lengths: list[int] = []
    most, random = length - 3, np.random.default_rng(0)
    for a, b in np.searchsorted(found.sentences[:, 0], found.documents).tolist():
        edges = np.append(found.sentences[a:b, 0], found.sentences[b - 1, 1])
        i = 0
        while i + 2 < len(edges):
            j = int(np.searchsorted(edges, edges[i] + most, side="right")) - 1
            if j < i + 2:  # two sentences do not fit: the second is cut
                j = i + 2
            middle = int(random.integers(i + 1, j))
            one = min(int(edges[middle] - edges[i]), most - 1)
            starts += [int(edges[i]), int(edges[middle])]
            lengths += [one, min(int(edges[j] - edges[middle]), most - one)]
            i = j
    return np.array(starts, np.int64), np.array(lengths, np.int64), np.arange(0, len(starts) + 1, 2)
