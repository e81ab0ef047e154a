"""Analogies and similarity by hand: who is asked, who is left out, and what is right."""

from pathlib import Path

import numpy as np
import pytest

from selfsup.data.text.vector_files import WordVectors
from selfsup.evaluation.word_scores import analogy, nearest, score_analogies, score_similarity

# In the plane: countries to the right, capitals the same turned up; "spoon" is far from all of it.
PLACES = {"France": 0, "Spain": 20, "Italy": 40, "Paris": 90, "Madrid": 110, "Rome": 130, "paris": 91, "spoon": 250}


def vectors() -> WordVectors:
    angles = np.radians(np.array(list(PLACES.values()), float))
    lengths = np.arange(1, len(angles) + 1)[:, None]  # only directions count
    return WordVectors(list(PLACES), (lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_nearest_words_and_analogies() -> None:
    assert [word for word, _ in nearest(vectors(), "Paris", 3)] == ["paris", "Madrid", "Rome"]
    assert nearest(vectors(), "Paris", 2)[1][1] == pytest.approx(np.cos(np.radians(20)), abs=1e-6)
    best = analogy(vectors(), "France", "Paris", "Italy", 2)
    z = np.array([-np.sin(np.radians(0)) + 0 - 1 + np.cos(np.radians(40)), 1 + np.sin(np.radians(40))])
    at = np.degrees(np.arctan2(z[1], z[0]))
    assert best[0][1] == pytest.approx(
        max(np.cos(np.radians(at - a)) for w, a in PLACES.items() if w in ("Madrid", "paris", "Rome")), abs=1e-6
    )
    assert not {"France", "Paris", "Italy"} & {word for word, _ in analogy(vectors(), "France", "Paris", "Italy", 100)}
    assert len(nearest(vectors(), "Paris", 100)) == 7
    with pytest.raises(ValueError, match=r'no word "Pariss" among 8; there are Paris'):
        nearest(vectors(), "Pariss")


QUESTIONS = """: capital-common
France Paris Spain Madrid
France Paris Spain Rome
france PARIS spain madrid
France Paris Norway Oslo
not a question

: nothing known
Oslo Norway Paris France
: other
Spain Italy Madrid Rome
"""


def test_analogies_are_counted_by_section(tmp_path: Path) -> None:
    """b - a + c of France Paris Spain points to 102 degrees, nearest to "paris", whose other case is in the question, then to Madrid."""
    found = score_analogies(vectors(), write(tmp_path / "q", QUESTIONS))
    assert found.sections == {"capital-common": (2, 3), "nothing known": (0, 0), "other": (1, 1)}
    assert (found.right, found.asked, found.unknown) == (3, 4, 2)
    assert found.accuracy == 3 / 4
    exact = score_analogies(vectors(), tmp_path / "q", fold_case=False)
    assert exact.sections["capital-common"] == (0, 2)  # "paris" is another word
    assert exact.unknown == 3
    few = score_analogies(vectors(), tmp_path / "q", most_words=5)
    assert few.sections == {"capital-common": (2, 2), "nothing known": (0, 0), "other": (0, 0)}  # no Rome


def test_similarity_is_the_rank_correlation_of_the_known_pairs(tmp_path: Path) -> None:
    pairs = (
        "# judged\nFrance\tSpain\t9\nfrance\tmadrid\t3\nParis\tRome\t5\nParis\tOslo\t7\nSpain\tspoon\t4\nno judgement\nFrance\tItaly\tx\n"
    )
    found = score_similarity(vectors(), write(tmp_path / "p", pairs))
    assert (found.pairs, found.unknown) == (4, 1)
    cosines = np.cos(np.radians([20, 110, 40, 230]))  # ranks 4 2 3 1 beside the judgement's 4 1 3 2
    assert found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.pearson == pytest.approx(np.corrcoef([9, 3, 5, 4], cosines)[0, 1], abs=1e-6)
    assert score_similarity(vectors(), tmp_path / "p", fold_case=False).unknown == 2


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a section"):
        score_analogies(vectors(), write(tmp_path / "q", "France Paris Spain Madrid\n"))
    with pytest.raises(ValueError, match="there is no file"):
        score_analogies(vectors(), tmp_path / "none")
    with pytest.raises(ValueError, match=r"0 pairs of words are known, 1 are not, and 0 lines"):
        score_similarity(vectors(), write(tmp_path / "p", "Oslo\tBergen\t3\n"))
