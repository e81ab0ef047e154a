"""`selfsup similar`: what lies nearest to a word, a text or an image in the space of a trained encoder; and analogies of words.

Axes: Q queries, N items to search, D width of a vector.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.box import SIMPLE
from rich.table import Column, Table

from selfsup.evaluation.features import embed_items
from selfsup.evaluation.word_scores import analogy, nearest
from selfsup.models.word_table import WordTable
from selfsup.tasks.exchange.word_vectors import word_vectors
from selfsup.tasks.pretraining.plan import check_numbers
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load

AT_ONCE = 1024  # queries
_ANALOGY = re.compile(r"(\S+)\s+-\s+(\S+)\s+\+\s+(\S+)")


@dataclass(frozen=True)
class Similar:
    """What is nearest to one query.

    Attributes:
        query: its name.
        found: name and cosine, the nearest first.
    """

    query: str
    found: tuple[tuple[str, float], ...]


@torch.no_grad()
def similar(
    encoder: str | Path | TrainedEncoder, query: Any, *, among: Any = None, count: int = 10, best: bool = False, max_bad: float = 0.01
) -> list[Similar]:
    """The items, or the words, whose vectors have the largest cosine to that of a query.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave.
        query: of text, a string, or several in a list; where `among` is not given a word, or an analogy "king - man + woman". Of images and
            vectors anything that `selfsup.pretrain` takes, such as the path of one image; each item is a query.
        among: what to search, as pretrain takes it; not given, the words of an encoder that has a table of them, such as word2vec's.
        count: of answers to each query.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.

    Raises:
        ValueError: there is nothing to search, no such word, or the data do not fit the encoder.
    """
    check_numbers({"count": count})
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    texts = [query] if isinstance(query, str) and trained.tokenizer is not None else query
    if among is None:
        if not isinstance(trained.network, WordTable):
            raise ValueError(
                "say what to search: --among DATA; only encoders with a table of words, such as word2vec's, have something in them"
            )
        return [_words(trained, text, count) for text in texts]
    asked, searched = (trained.open(data, max_bad=max_bad) for data in (texts, among))
    z, q = (F.normalize(embed_items(trained.network, items, trained.image_size), dim=1) for items in (searched, asked))
    found = []
    for part in q.split(AT_ONCE):
        values, rows = (part @ z.T).topk(min(count, len(z)), dim=1)
        found += list(zip(values.tolist(), rows.tolist(), strict=True))
    names = searched.names
    return [
        Similar(name, tuple((names[row], value) for value, row in zip(values, rows, strict=True)))
        for name, (values, rows) in zip(asked.names, found, strict=True)
    ]


def _words(trained: TrainedEncoder, text: str, count: int) -> Similar:
    vectors = word_vectors(trained)
    asked = _ANALOGY.fullmatch(text.strip())
    if asked:
        b, a, c = asked.groups()
        return Similar(text, tuple(analogy(vectors, a, b, c, count)))
    return Similar(text, tuple(nearest(vectors, text.strip(), count)))


def as_table(found: Sequence[Similar]) -> Table:
    """Every query with its answers, for a terminal."""
    table = Table(Column("query", overflow="fold"), Column("nearest", overflow="fold"), Column("cosine", justify="right"), box=SIMPLE)
    for answer in found:
        for i, (name, value) in enumerate(answer.found):
            table.add_row("" if i else answer.query, name, f"{value:.3f}", end_section=i + 1 == len(answer.found))
    return table
