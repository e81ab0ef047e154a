"""STS: files are read as they are, scores follow the judgements, and alignment and uniformity are of the right sentences."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from selfsup.data.errors import BadDataError
from selfsup.evaluation.measures import alignment, uniformity
from selfsup.evaluation.sts import Pairs, read_pairs, read_sets, sts


def letters(sentences: Sequence[str]) -> torch.Tensor:
    """Counts of letters: a sentence encoder that knows a little."""
    return torch.tensor([[float(s.count(c)) for c in "abcdef"] for s in sentences])


ALIKE = Pairs("alike", [5.0, 2.0, 0.0], ["aab", "abc", "a"], ["aba", "abd", "b"], 0)


def test_scores_follow_the_judgements() -> None:
    found = sts(letters, [ALIKE])
    assert found["sets"] == {"alike": pytest.approx(1.0)}  # cosines 1, 2/3 and 0
    backwards = ALIKE._replace(name="backwards", scores=[0.0, 2.0, 5.0])
    found = sts(letters, [ALIKE, backwards])
    assert found["sets"]["backwards"] == pytest.approx(-1.0)
    assert found["mean"] == pytest.approx(0.0)
    assert (found["pairs"], found["sentences"]) == (6, 6)


def test_alignment_is_of_pairs_that_mean_the_same_and_uniformity_of_all_sentences_once() -> None:
    first = Pairs("one", [4.0, 3.9, 5.0], ["aab", "abc", "aab"], ["abb", "f", "aab"], 0)
    found = sts(letters, [first, first._replace(name="two")])
    assert found["alignment"] == pytest.approx(alignment(letters(["aab"]), letters(["abb"])))  # a sentence and itself are no pair
    assert found["uniformity"] == pytest.approx(uniformity(letters(["aab", "abb", "abc", "f"])))
    assert math.isnan(sts(letters, [ALIKE._replace(scores=[1.0, 2.0, 3.0])])["alignment"])


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "2014.x.tsv").write_text('4.5\ta "quoted\tb\r\n\tnot judged\tc\n\n3\t \tb\n0\td\te\n', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no pairs")
    (found,) = read_sets(tmp_path)
    assert found == Pairs("2014.x", [4.5, 0.0], ['a "quoted', "d"], ["b", "e"], 2)


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("4.5\ta\tb\na\tb\t4.5\n")
    with pytest.raises(ValueError, match=r"line 2: expected a score of 0 to 5 in the first column, got 'a'"):
        read_pairs(path)
    path.write_text("7\ta\tb\n")
    with pytest.raises(ValueError, match="of 0 to 5 in the first column, got '7'"):
        read_pairs(path)
    path.write_text("4.5\ta\n")
    with pytest.raises(ValueError, match="line 1: expected SCORE TAB SENTENCE TAB SENTENCE, got 2 columns"):
        read_pairs(path)
    path.write_text("4.5\ta\tb\n\tc\td\n")
    with pytest.raises(BadDataError, match="1 judged pairs"):
        read_pairs(path)
    with pytest.raises(ValueError, match="a folder of them"):
        read_sets(tmp_path / "none")
