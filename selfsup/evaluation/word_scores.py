"""What vectors of words are worth: analogies and similarity by people's judgement, counted as gensim counts; and questions to ask them.

Axes: V words, D numbers of a vector, Q questions.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from selfsup.data.text.vector_files import WordVectors
from selfsup.evaluation.text_scores import pearson, spearman

MOST_WORDS = 300_000
CANDIDATES = 5  # of an analogy that are looked through for one that is none of the question's words in another case
_AT_A_TIME = 256  # questions


@dataclass(frozen=True)
class Analogies:
    """Answers to a file of analogies.

    Attributes:
        sections: (right, asked) of each section, in the file's order.
        unknown: questions with a word that the vectors lack, which are not asked.
    """

    sections: dict[str, tuple[int, int]]
    unknown: int

    @property
    def right(self) -> int:
        """Right answers in all."""
        return sum(right for right, _ in self.sections.values())

    @property
    def asked(self) -> int:
        """Questions asked in all."""
        return sum(asked for _, asked in self.sections.values())

    @property
    def accuracy(self) -> float:
        """Right answers over questions asked, 0 to 1; 0 where none was."""
        return self.right / max(1, self.asked)


@dataclass(frozen=True)
class Similarity:
    """Agreement with people's judgement of pairs.

    Attributes:
        spearman, pearson: correlation of judgement and cosine, -1 to 1.
        pairs: that were compared.
        unknown: pairs with a word that the vectors lack, which are left out.
        unread: lines that are no two words and a number, such as a header; left out as well.
    """

    spearman: float
    pearson: float
    pairs: int
    unknown: int
    unread: int


def nearest(found: WordVectors, word: str, n: int = 10) -> list[tuple[str, float]]:
    """The n words with the largest cosine to a word, that word itself left out.

    Raises:
        ValueError: the word is not there; names those that are spelt like it.
    """
    z = _unit(found.vectors)
    return _best(found.words, z @ z[number(found, word)], {number(found, word)}, n)


def analogy(found: WordVectors, a: str, b: str, c: str, n: int = 10) -> list[tuple[str, float]]:
    """What is to c as b is to a: the n words nearest to b - a + c by cosine (3CosAdd, Levy and Goldberg 2014), those three left out.

    Raises:
        ValueError: a word is not there; names those that are spelt like it.
    """
    z = _unit(found.vectors)
    i, j, k = (number(found, word) for word in (a, b, c))
    return _best(found.words, z @ _unit((z[j] - z[i] + z[k])[None])[0], {i, j, k}, n)


def number(found: WordVectors, word: str) -> int:
    """The row of a word.

    Raises:
        ValueError: it is not there; names those that are spelt like it.
    """
    try:
        return list(found.words).index(word)
    except ValueError:
        near = difflib.get_close_matches(word, found.words[:20_000], n=3)
        hint = f"; there are {', '.join(near)}" if near else ""
        raise ValueError(f'no word "{word}" among {len(found.words):,}{hint}') from None


def score_analogies(found: WordVectors, path: str | Path, *, most_words: int = MOST_WORDS, fold_case: bool = True) -> Analogies:
    """Ask the questions of a file such as questions-words.txt: "a b c d" a line, d being the answer, sections begun by ": name".

    Args:
        found: frequent words first.
        path: the file.
        most_words: only so many of the first words are known.
        fold_case: words that differ in their case are one, with the vector of the first.

    Raises:
        ValueError: there is no such file, or a question comes before any section.
    """
    words, known = _known(found.words, most_words, fold_case)
    asked: dict[str, list[tuple[int, ...]]] = {}
    section, unknown = None, 0
    for line in _lines(path):
        if line.startswith(": "):
            section = line.lstrip(": ").strip()
            asked.setdefault(section, [])
            continue
        if section is None:
            raise ValueError(f'{path}: expected a section, ": name", before the first question, got {line[:40]!r}')
        question = (line.upper() if fold_case else line).split()
        if len(question) != 4:
            continue
        rows = tuple(known.get(word, -1) for word in question)
        if min(rows) < 0:
            unknown += 1
        else:
            asked[section].append(rows)
    z = _unit(found.vectors[: len(words)])
    sections = {name: (_right(z, words, np.array(rows, np.int64).reshape(-1, 4)), len(rows)) for name, rows in asked.items()}
    return Analogies(sections, unknown)


def score_similarity(found: WordVectors, path: str | Path, *, most_words: int = MOST_WORDS, fold_case: bool = True) -> Similarity:
    """Compare with judgements, such as WordSim-353, MEN or SimLex-999: two words and a score a line, comments begin with #.

    Args:
        found: frequent words first.
        path: the file.
        most_words, fold_case: see `score_analogies`.

    Raises:
        ValueError: there is no such file, or fewer than two of its pairs are known.
    """
    _, known = _known(found.words, most_words, fold_case)
    z, judged, cosines, unknown, unread = _unit(found.vectors), [], [], 0, 0
    for line in _lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        fields = (line.upper() if fold_case else line).split()
        try:
            score = float(fields[2]) if len(fields) == 3 else None
        except ValueError:
            score = None
        if score is None:
            unread += 1
            continue
        a, b = known.get(fields[0], -1), known.get(fields[1], -1)
        if min(a, b) < 0:
            unknown += 1
            continue
        judged.append(score)
        cosines.append(float(z[a] @ z[b]))
    if len(judged) < 2:
        raise ValueError(
            f"{path}: {len(judged)} pairs of words are known, {unknown} are not, and {unread} lines have another form; expected lines of "
            "word TAB word TAB score"
        )
    return Similarity(spearman(judged, cosines), pearson(judged, cosines), len(judged), unknown, unread)


def _known(words: Sequence[str], most: int, fold_case: bool) -> tuple[list[str], dict[str, int]]:
    """The words that count, as they are compared, and where the first of each is."""
    compared = [word.upper() if fold_case else word for word in words[:most]]
    known: dict[str, int] = {}
    for i, word in enumerate(compared):
        known.setdefault(word, i)
    return compared, known


def _right(z: Float32[np.ndarray, "V D"], words: list[str], questions: np.ndarray) -> int:
    """How many of (Q, 4) questions have the right answer: the best word that is none of the question's, in any case."""
    right = 0
    for part in np.array_split(questions, max(1, -(-len(questions) // _AT_A_TIME))):
        a, b, c = part.T[:3]
        scores = _unit(z[b] + z[c] - z[a]) @ z.T
        np.put_along_axis(scores, part[:, :3], -np.inf, axis=1)
        few = min(CANDIDATES, scores.shape[1])
        best = np.argpartition(-scores, few - 1, axis=1)[:, :few]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1)
        for row, question in zip(best.tolist(), part.tolist(), strict=True):
            its_own = {words[i] for i in question[:3]}
            answer = next((words[i] for i in row if words[i] not in its_own), None)
            right += answer == words[question[3]]
    return right


def _best(words: Sequence[str], scores: np.ndarray, left_out: set[int], n: int) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[: n + len(left_out)]
    return [(words[i], float(scores[i])) for i in order.tolist() if i not in left_out][:n]


def _unit(x: Float32[np.ndarray, "V D"]) -> Float32[np.ndarray, "V D"]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(norm > 0, norm, 1)).astype(np.float32)


def _lines(path: str | Path) -> Iterator[str]:
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    yield from path.read_text(encoding="utf-8-sig").split("\n")
