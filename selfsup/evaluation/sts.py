"""Semantic textual similarity: do vectors say how alike two sentences are, as people have judged it? And how they fill the sphere.

The protocol of SentEval without a regressor on top: Spearman's rank correlation of the cosine with the judgements in each set,
and the plain mean over the sets. Alignment and uniformity: Wang and Isola, ICML 2020, on sentences as in SimCSE (2104.08821, section 3.1).

Axes: N pairs, S sentences, D width.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.data.errors import BadDataError
from selfsup.data.text.rows import read_lines
from selfsup.evaluation.measures import alignment, spearman, uniformity

ALIKE = 4.0
"""Pairs with at least this judgement, of 0 to 5, mean the same: alignment is theirs."""


class Pairs(NamedTuple):
    """A set of judged pairs.

    Attributes:
        name: of its file, without .tsv.
        scores: (N,) judgements, 0 (nothing in common) to 5 (the same).
        first, second: N sentences each.
        left_out: lines without a judgement or without one of the sentences.
    """

    name: str
    scores: list[float]
    first: list[str]
    second: list[str]
    left_out: int


def read_pairs(path: Path) -> Pairs:
    """A file of lines SCORE TAB SENTENCE TAB SENTENCE; lines without a score, or a sentence, are left out and counted.

    Raises:
        ValueError: a line of another form, or a score that is no number of 0 to 5; names the line.
        BadDataError: fewer than two judged pairs.
    """
    scores: list[float] = []
    first: list[str] = []
    second: list[str] = []
    left_out = 0
    for n, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 3:
            raise ValueError(f"{path}, line {n}: expected SCORE TAB SENTENCE TAB SENTENCE, got {len(parts)} columns")
        if not all(part.strip() for part in parts):
            left_out += 1
            continue
        try:
            score = float(parts[0])
        except ValueError:
            score = math.nan
        if not 0 <= score <= 5:
            raise ValueError(f"{path}, line {n}: expected a score of 0 to 5 in the first column, got {parts[0][:40]!r}")
        scores.append(score)
        first.append(parts[1])
        second.append(parts[2])
    if len(scores) < 2:
        raise BadDataError(f"{path}: {len(scores)} judged pairs; a correlation needs two or more")
    return Pairs(path.name.removesuffix(".tsv"), scores, first, second, left_out)


def read_sets(data: str | Path) -> list[Pairs]:
    """Every .tsv file of a folder, or one file.

    Raises:
        ValueError: nothing is there, or see `read_pairs`.
    """
    path = Path(data).expanduser()
    files = sorted(path.glob("*.tsv")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise ValueError(f"{path}: expected a .tsv file of judged pairs of sentences, or a folder of them")
    return [read_pairs(file) for file in files]


def sts(embed: Callable[[Sequence[str]], Tensor], sets: Sequence[Pairs]) -> dict[str, Any]:
    """Scores of an encoder of sentences.

    Args:
        embed: S sentences -> (S, D) vectors; each sentence is asked for once.
        sets: judged pairs, as `read_sets` gives them.

    Returns:
        "sets": Spearman by set; "mean" of them; "alignment" of the pairs that mean the same (nearer 0 is better; NaN without any) and
        "uniformity" of all sentences (nearer -4 is better); "pairs" and "left_out", counts; "sentences", different ones.
    """
    number: dict[str, int] = {}
    for pairs in sets:
        for sentence in (*pairs.first, *pairs.second):
            number.setdefault(sentence, len(number))
    z = F.normalize(embed(list(number)).detach().cpu().double(), dim=1)
    found: dict[str, float] = {}
    alike: list[tuple[int, int]] = []
    for pairs in sets:
        places = [(number[a], number[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]
        found[pairs.name] = spearman(cosines(z, places), pairs.scores)
        alike += [at for at, score in zip(places, pairs.scores, strict=True) if score >= ALIKE and at[0] != at[1]]
    ends = torch.tensor(alike, dtype=torch.long).view(-1, 2)
    return {
        "sets": found,
        "mean": sum(found.values()) / len(found),
        "alignment": alignment(z[ends[:, 0]], z[ends[:, 1]]) if alike else math.nan,
        "uniformity": uniformity(z),
        "pairs": sum(len(pairs.scores) for pairs in sets),
        "left_out": sum(pairs.left_out for pairs in sets),
        "sentences": len(number),
    }


def cosines(z: Float[Tensor, "S D"], places: Sequence[tuple[int, int]]) -> Float[Tensor, " N"]:
    """Inner products of the vectors at each pair of places."""
    a, b = torch.tensor(places).T
    return (z[a] * z[b]).sum(dim=1)
