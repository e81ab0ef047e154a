"""The formats of word2vec: bit for bit there and back, by hand, and every damage named."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from selfsup.data.text.vector_files import WordVectors, read_word_vectors, write_word_vectors


def some(n: int = 200, width: int = 7) -> WordVectors:
    """Vectors of any bits that are finite, and words in many scripts."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, n * width * 2, dtype=np.uint32).view(np.float32)
    vectors = bits[np.isfinite(bits)][: n * width].reshape(n, width)
    return WordVectors(
        [f"{w}{i}" for i, w in zip(range(n), ["a", "ü", "文字", "#", "1.5", "\t", "\u2028", "\ufeff"] * n, strict=False)], vectors
    )


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ["v.txt", "v.bin.gz"])
def test_every_bit_comes_back(binary: bool, name: str, tmp_path: Path) -> None:
    found = some()
    write_word_vectors(tmp_path / name, found, binary=binary)
    for told in (binary, None):
        read = read_word_vectors(tmp_path / name, binary=told)
        assert read.words == found.words
        assert np.array_equal(read.vectors.view(np.uint32), found.vectors.view(np.uint32))
        assert read.repeated == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_formats_by_hand(tmp_path: Path) -> None:
    found = WordVectors(["of", "and"], np.array([[0.1, -2], [1e-5, 3e10]], np.float32))
    write_word_vectors(tmp_path / "t", found, binary=False)
    assert (tmp_path / "t").read_text() == "2 2\nof 0.1 -2.0\nand 1e-05 3e+10\n"
    write_word_vectors(tmp_path / "b", found, binary=True)
    packed = [struct.pack("<2f", 0.1, -2), struct.pack("<2f", 1e-5, 3e10)]
    assert (tmp_path / "b").read_bytes() == b"2 2\nof " + packed[0] + b"and " + packed[1]
    (tmp_path / "c").write_bytes(b"2 2\nof " + packed[0] + b"\nand " + packed[1] + b"\n")  # as the authors' program writes it
    assert np.array_equal(read_word_vectors(tmp_path / "c").vectors, found.vectors)
    assert read_word_vectors(tmp_path / "c").words == found.words
    (tmp_path / "w").write_bytes(b"2 2\r\nof 0.1 -2 \r\nand 1e-5 3e10\r\n")  # another system's
    assert np.array_equal(read_word_vectors(tmp_path / "w").vectors, found.vectors)


def test_of_a_word_that_comes_again_the_first_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("3 1\na 1\nb 2\na 3\n")
    read = read_word_vectors(tmp_path / "t")
    assert (read.words, read.vectors.tolist(), read.repeated) == (["a", "b"], [[1], [2]], 1)


@pytest.mark.parametrize("binary", [False, True])
def test_what_is_cut_anywhere_is_refused(binary: bool, tmp_path: Path) -> None:
    write_word_vectors(tmp_path / "v", some(5, 3), binary=binary)
    data = (tmp_path / "v").read_bytes()
    for cut in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:cut])
        with pytest.raises(ValueError, match="/cut"):
            read_word_vectors(tmp_path / "cut", binary=binary)


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v"
    for data, message in [
        (b"", "expected the number of words"),
        (b"the 0.1 0.2\nof 0.3 0.4\n", "GloVe"),
        (b"0 3\n", "expected the number of words"),
        (b"2 2\na 1 2\nb 1\n", "line 3 of 3"),
        (b"2 2\na 1 2\nb 1 x\n", "line 3 of 3"),
        (b"1 2\na 1 2\nb 1 2\n", "more lines than the 1"),
        (b"2 2\na 1 2\n", "ends before line 3 of 3"),
        (b"2 2\na 1 2\nb 1 2", "ends within line 3 of 3"),
        (b"1 2\na 1 nan\n", 'vector of "a" is not finite'),
        (b"1 1\na " + bytes(4) + b"b " + bytes(4), "more in it than the 1"),
        (b"2 1\na " + bytes(4) + b"b " + bytes(3), "after 1 of 2 words"),
        (b"1 1\n\xff\xfe " + bytes(4), "damaged"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_word_vectors(path)
    packed = gzip.compress(b"1 1\na 1\n" * 50)
    (tmp_path / "v.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_word_vectors(tmp_path / "v.gz")
    with pytest.raises(ValueError, match="there is no file"):
        read_word_vectors(tmp_path / "nothing")


def test_words_that_the_formats_cannot_hold_are_refused(tmp_path: Path) -> None:
    for word in ("New York", "", "a\nb"):
        with pytest.raises(ValueError, match="cannot hold the word"):
            write_word_vectors(tmp_path / "v", WordVectors([word], np.ones((1, 2), np.float32)), binary=True)
    with pytest.raises(ValueError, match="finite"):
        write_word_vectors(tmp_path / "v", WordVectors(["a"], np.full((1, 2), np.nan, np.float32)), binary=True)
    assert not list(tmp_path.iterdir())
