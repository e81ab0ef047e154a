"""The two formats of word2vec: a line with the number of words and of their vectors' numbers, then each word and its vector.

Text has a line for each word, with the shortest decimals that give the same float32; binary has float32, little end first. Both are what
gensim reads and writes, bit for bit.
"""

import gzip
import os
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

_BLOCK = 1 << 20
_LONGEST = 1 << 16  # bytes of a word


class WordVectors(NamedTuple):
    """Words, frequent ones first where that is known, and their vectors.

    Attributes:
        words: V different ones.
        vectors: (V, D).
        repeated: how many words of a file had been there before and were left out.
    """

    words: Sequence[str]
    vectors: Float32[np.ndarray, "V D"]
    repeated: int = 0


def can_hold(word: str) -> bool:
    """Whether the formats can hold a word: it is not empty, and has neither a space nor a line's end in it."""
    return bool(word) and " " not in word and "\n" not in word


def write_word_vectors(path: str | Path, found: WordVectors, *, binary: bool) -> None:
    """Write a file, whole or not at all; with .gz at the end of its name, compressed.

    Raises:
        ValueError: a word that the formats cannot hold, or numbers that are not finite.
        OSError: the file cannot be written.
    """
    path = Path(path)
    bad = next((word for word in found.words if not can_hold(word)), None)
    if bad is not None:
        raise ValueError(
            f"the formats of word2vec cannot hold the word {bad!r}: no word may be empty or have a space or a line's end in it"
        )
    vectors = np.ascontiguousarray(found.vectors, "<f4")
    if vectors.ndim != 2 or len(vectors) != len(found.words) or not np.isfinite(vectors).all():
        raise ValueError(f"expected a finite vector for each of {len(found.words)} words, got {vectors.shape}, or some are not finite")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with gzip.open(beside, "wb") if path.suffix == ".gz" else beside.open("wb") as file:
            file.write(f"{len(vectors)} {vectors.shape[1]}\n".encode())
            for word, vector in zip(found.words, vectors, strict=True):
                numbers = vector.tobytes() if binary else " ".join(vector.astype(str)).encode() + b"\n"
                file.write(word.encode() + b" " + numbers)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_word_vectors(path: str | Path, *, binary: bool | None = None) -> WordVectors:
    """Read a file, also one that is compressed (.gz).

    Of words that come again the first is kept, as in gensim.

    Args:
        path: the file.
        binary: the format; None to find out from the first word.

    Raises:
        ValueError: there is no such file, it is of another kind, or damaged; says where.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with _opened(path, "rb", packed=path.suffix == ".gz") as file:
            count, width = _header(path, file.readline(_LONGEST))
            begin = file.read(_LONGEST + 64 * width)
            text = _is_text(begin, width) if binary is None else not binary
            pairs = (_read_text if text else _read_binary)(path, file, begin, count, width)
            words: dict[str, np.ndarray] = {}
            for word, vector in pairs:
                words.setdefault(word, vector)
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    vectors = np.stack(list(words.values()))
    unsound = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(unsound):
        raise ValueError(f'{path}: damaged, the vector of "{list(words)[unsound[0]]}" is not finite')
    return WordVectors(list(words), vectors, count - len(words))


def _opened(path: Path, mode: Literal["rb", "wb"], *, packed: bool) -> BufferedIOBase:
    return gzip.open(path, mode) if packed else path.open(mode)  # type: ignore[return-value]


def _header(path: Path, line: bytes) -> tuple[int, int]:
    fields = line.split()
    if len(fields) != 2 or not all(f.isdigit() and len(f) < 12 for f in fields) or min(map(int, fields)) < 1:
        raise ValueError(
            f"{path}: expected the number of words and the width of their vectors in the first line, got {line[:40]!r}; "
            "files of GloVe lack that line: put it there"
        )
    return int(fields[0]), int(fields[1])


def _is_text(begin: bytes, width: int) -> bool:
    fields = begin.split(b"\n", 1)[0].split()
    try:
        return len([float(x) for x in fields[1:]]) == width
    except ValueError:
        return False


def _read_text(path: Path, file: BufferedIOBase, begin: bytes, count: int, width: int) -> Iterator[tuple[str, np.ndarray]]:
    kept, number = begin, 0
    while kept or number < count:
        while b"\n" not in kept and (block := file.read(_BLOCK)):
            kept += block
        *lines, kept = kept.split(b"\n")
        if not lines:
            raise ValueError(f"{path}: damaged, it ends {'within' if kept else 'before'} line {number + 2} of {count + 1}")
        for line in lines:
            if number == count:
                if line.strip():
                    raise ValueError(f"{path}: damaged, more lines than the {count} that its first one says")
                continue
            word, *fields = line.rstrip().decode().split(" ")
            try:
                vector = np.array([float(x) for x in fields], np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if len(vector) != width or not word:
                raise ValueError(
                    f"{path}: damaged, expected a word and {width} numbers in line {number + 2} of {count + 1}, got {line[:60]!r}"
                )
            number += 1
            yield word, vector


def _read_binary(path: Path, file: BufferedIOBase, begin: bytes, count: int, width: int) -> Iterator[tuple[str, np.ndarray]]:
    kept, at, size = begin, 0, 4 * width
    for number in range(count):
        while (space := kept.find(b" ", at)) < 0 or len(kept) - space - 1 < size:
            block = file.read(_BLOCK + size) if space >= 0 or len(kept) - at < _LONGEST else b""
            if not block:
                raise ValueError(f"{path}: damaged, it ends or goes wrong after {number} of {count} words")
            kept, at = kept[at:] + block, 0
        word = kept[at:space].lstrip(b"\n").decode()  # the authors' program ends vectors with a new line, gensim does not
        if not word:
            raise ValueError(f"{path}: damaged, word {number + 1} of {count} is empty")
        at = space + 1 + size
        yield word, np.frombuffer(kept, "<f4", width, space + 1).astype(np.float32)
    if (kept[at:] + file.read(_BLOCK)).strip(b"\n"):
        raise ValueError(f"{path}: damaged, more in it than the {count} words that its first line says")
