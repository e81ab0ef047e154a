"""Items of whole lines: every word once and in order, a line's words together, END after each."""

from pathlib import Path

import numpy as np
import pytest

from selfsup.data.text.texts import open_text

LINES = [["a b c", "d e", ""], ["f g h i j k l m n o p q r s t u v w x y z"], ["a", "b c d e f"]]


@pytest.mark.parametrize("length", [8, 9, 30])
def test_lines_are_whole_and_in_order(length: int, tmp_path: Path) -> None:
    text = ["\n".join(lines) for lines in LINES]
    items = open_text(text, tokenizer="word", layout="lines", length=length, min_count=1, cache_dir=tmp_path)
    t = items.tokenizer
    assert t is not None
    rows = items.batch(np.arange(len(items)))["text"].numpy()
    assert rows.shape[1] == length
    sentences = []
    for row in rows:
        filled = row[row != t.pad]
        assert filled[-1] == t.end
        assert (row[len(filled) :] == t.pad).all()
        sentences += [" ".join(t.tokens(part.tolist())) for part in np.split(filled, np.flatnonzero(filled == t.end) + 1)[:-1]]
    found = [s.removesuffix(" [SEP]") for s in sentences]
    long = LINES[1][0].split()
    parts = [" ".join(long[i : i + length - 1]) for i in range(0, len(long), length - 1)]
    assert found == ["a b c", "d e", *parts, "a", "b c d e f"]
    counts = items.store.counts(t.size)  # type: ignore[attr-defined]
    assert counts[t.number("a")] == 2
    assert counts.sum() == sum(len(line.split()) for lines in LINES for line in lines) + len(LINES)


def test_as_many_lines_as_fit_share_an_item(tmp_path: Path) -> None:
    items = open_text(["x y z\n" * 10], tokenizer="word", layout="lines", length=8, min_count=1, cache_dir=tmp_path)
    assert len(items) == 5


def test_an_item_is_the_same_with_a_tokenizer_that_is_given(tmp_path: Path) -> None:
    text = ["One. Two three. Four five six.\nSeven eight."]
    first = open_text(text, tokenizer="word", layout="lines", length=8, min_count=1, cache_dir=tmp_path)
    again = open_text(text, tokenizer=first.tokenizer, layout="lines", length=8, cache_dir=tmp_path)  # type: ignore[arg-type]
    assert np.array_equal(*(items.batch(np.arange(len(items)))["text"].numpy() for items in (first, again)))


def test_seldom_words_are_unknown(tmp_path: Path) -> None:
    items = open_text(["a a a b b c\n" * 2], tokenizer="word", layout="lines", length=16, min_count=4, cache_dir=tmp_path)
    assert items.tokenizer is not None
    assert [items.tokenizer.number(word) is None for word in "abc"] == [False, False, True]
    assert items.tokenizer.size == 7
