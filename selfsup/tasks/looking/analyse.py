"""What a text encoder's layers hold: one word's vectors in several sentences, and the vector that leads from one language to another.

Axes: S sentences, T tokens, L layers, width of a token's vector.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from rich.box import SIMPLE
from rich.table import Column, Table
from torch import Tensor

from selfsup.abilities import NamesTokens
from selfsup.data import Items, sequential
from selfsup.data.text.rows import read_lines
from selfsup.data.text.texts import open_sentences
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.models.text import TextTransformer
from selfsup.tasks.pretraining.plan import check_numbers
from selfsup.tasks.saved.trained_encoder import load
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method

ROWS = 64  # texts at a time
AROUND = 30  # characters of a sentence that are shown on each side of the word


@dataclass(frozen=True)
class Contextual:
    """One word in its contexts.

    Attributes:
        word: that was looked for.
        layer: whose vectors are compared; 0 is the embeddings, before any context.
        sentences: in which the word is, in the order of the rows.
        similarity: (S, S) cosine of the word's vectors in two sentences.
        without: sentences that do not have the word.
    """

    word: str
    layer: int
    sentences: tuple[str, ...]
    similarity: Float[np.ndarray, "S S"]
    without: int


@torch.no_grad()
def contextual(encoder: str | Path, word: str, sentences: Any, *, layer: int | None = None, best: bool = False) -> Contextual:
    """The cosine between the vectors that one word has in several sentences: alike where it means the same.

    A word of several tokens has the mean of their vectors; of a sentence with the word twice, the first counts.

    Args:
        encoder: a run or an encoder folder of text.
        word: as it is written, capitals aside.
        sentences: a list, or a file with one a line.
        layer: 0 for the embeddings to L for the last layer's; the last when not given.
        best: of a run, the best checkpoint by the label-free measure instead of the last.

    Raises:
        ValueError: no transformer of text, no such layer, or the word is in fewer than two of the sentences.
    """
    network, tokenizer = _open(encoder, best=best)
    layer = _layer(network, layer)
    texts, found, vectors = texts_of(sentences), [], []
    for text in texts:
        at = text.lower().find(word.lower())
        ids, where = (part[: network.length - 2] for part in tokenizer.encode_with_offsets(text))
        covers = (where[:, 0] < at + len(word)) & (where[:, 1] > at) if at >= 0 else np.zeros(len(ids), bool)
        if not covers.any():
            continue
        row = torch.tensor([[tokenizer.start, *ids, tokenizer.end]])
        hidden = layers_of(network, row)[layer][0, 1:-1]
        vectors.append(hidden[torch.from_numpy(covers)].float().mean(dim=0))
        found.append(text)
    if len(found) < 2:
        raise ValueError(f'"{word}" is in {len(found)} of {len(texts)} sentences; it takes two to compare')
    z = F.normalize(torch.stack(vectors), dim=1)
    return Contextual(word, layer, tuple(found), (z @ z.T).numpy(), len(texts) - len(found))


@dataclass(frozen=True)
class Shifted:
    """Texts of one language with the difference of two languages added on the way.

    Attributes:
        alpha: times the difference.
        share: of the predicted tokens that are more frequent in the other language than in the texts' own, 0 to 1.
        texts: what is predicted at every place of the first texts.
        matched: share of texts whose vector, so moved, is nearest to that of the text with the same number in the other language; None
            where the languages do not have equally many texts.
    """

    alpha: float
    share: float
    texts: tuple[str, ...]
    matched: float | None


@torch.no_grad()
def language_difference(
    run: str | Path,
    source: Any,
    target: Any,
    *,
    layer: int | None = None,
    alphas: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 3.0),
    shown: int = 3,
    best: bool = False,
) -> list[Shifted]:
    """Add alpha times (mean vector of the target language - mean vector of the source) to a layer, and see what the model reads then.

    A model of several languages, trained with one vocabulary on texts that are no translations of each other, puts what means the same
    close together, apart from this difference (Liu et al. 2020, https://arxiv.org/abs/2010.10041).

    Args:
        run: a run of a method that names hidden tokens, such as bert.
        source, target: texts of each language: lists, or files with one a line. Where both have equally many, they are taken for
            translations of each other, and it is measured how often the nearest one is right.
        layer: 0 for the embeddings to L for the last; the middle one when not given.
        alphas: factors.
        shown: texts whose predictions are given in full.
        best: of a run, the best checkpoint by the label-free measure instead of the last.

    Raises:
        ValueError: the run has no head for tokens, no such layer, or there is no text.
    """
    trained = load_method(run, best=best)
    method, tokenizer, network = _names_tokens(trained)
    layer = _layer(network, len(network.layers) // 2 if layer is None else layer)
    check_numbers({"shown": shown})
    sides = [open_sentences(texts_of(data), tokenizer=tokenizer, length=network.length) for data in (source, target)]
    means, vectors, counts = [], [], []
    for side in sides:
        total, occurs, pooled = torch.zeros(network.width), torch.zeros(tokenizer.size, dtype=torch.float64), []
        for rows in _rows(side):
            hidden = layers_of(network, rows)[layer].float()
            there = _is_text(rows, tokenizer)
            total += hidden[there].sum(dim=0)
            occurs += torch.bincount(rows[there], minlength=tokenizer.size)
            pooled.append((hidden * there.unsqueeze(2)).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1))
        means.append(total / occurs.sum().clamp(min=1))
        vectors.append(torch.cat(pooled))
        counts.append(occurs / occurs.sum().clamp(min=1))
    difference, foreign = means[1] - means[0], counts[1] > counts[0]
    found = []
    for alpha in alphas:
        said, hits, places = [], 0, 0
        for rows in _rows(sides[0]):
            there = _is_text(rows, tokenizer)
            with added(network, layer, alpha * difference):
                scores = method.scores(network.hidden(rows)[there])
            tokens = scores.argmax(dim=1)
            hits, places = hits + int(foreign[tokens].sum()), places + len(tokens)
            if len(said) < shown:
                said += [tokenizer.decode(part.numpy()) for part in tokens.split(there.sum(dim=1).tolist())]
        matched = _matched(vectors[0] + alpha * difference, vectors[1]) if len(vectors[0]) == len(vectors[1]) else None
        found.append(Shifted(alpha, hits / max(places, 1), tuple(said[:shown]), matched))
    return found


def layers_of(network: TextTransformer, ids: Int[Tensor, "B T"]) -> list[Tensor]:
    """L + 1 tensors (B, T, width): the embeddings, and what comes out of each layer."""
    found: list[Tensor] = []
    embedded = network.embed_tokens(ids)
    hooks = [layer.register_forward_hook(lambda _m, _i, out: found.append(out)) for layer in network.layers]
    try:
        network.hidden(ids, embedded=embedded)
    finally:
        for hook in hooks:
            hook.remove()
    return [embedded, *found]


@contextmanager
def added(network: TextTransformer, layer: int, vector: Float[Tensor, " width"]) -> Iterator[None]:
    """The vector is added to every token of a layer meanwhile; 0 is the embeddings."""
    if layer:
        hook = network.layers[layer - 1].register_forward_hook(lambda _m, _i, out: out + vector)
    else:
        hook = network.layers[0].register_forward_pre_hook(lambda _m, args: (args[0] + vector, *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def _matched(moved: Float[Tensor, "S width"], other: Float[Tensor, "S width"]) -> float:
    nearest = (F.normalize(moved, dim=1) @ F.normalize(other, dim=1).T).argmax(dim=1)
    return float((nearest == torch.arange(len(moved))).float().mean())


def texts_of(data: Any) -> list[str]:
    """Texts in a list, or lines of a file, but empty ones.

    Raises:
        ValueError: there is no such file, or nothing in it.
    """
    if isinstance(data, str | Path):
        if not Path(data).is_file():
            raise ValueError(f"there is no file {data}; expected a text a line")
        data = read_lines(Path(data))
    texts = [str(text) for text in data if str(text).strip()]
    if not texts:
        raise ValueError("there is no text to look at; expected one a line")
    return texts


def _open(encoder: str | Path, *, best: bool) -> tuple[TextTransformer, Tokenizer]:
    trained = load(encoder, best=best)
    if not isinstance(trained.network, TextTransformer) or trained.tokenizer is None:
        raise ValueError(f"{encoder}: expected a transformer of text, such as a run of bert or gpt")
    return trained.network, trained.tokenizer


def _names_tokens(trained: TrainedMethod) -> tuple[Any, Tokenizer, TextTransformer]:
    trained.require(NamesTokens, "name the tokens of a text")
    network = trained.method.encoder
    if not isinstance(network, TextTransformer) or network.causal or trained.tokenizer is None:
        raise ValueError(f"a run of {trained.config['method']} sees no token's right side; a run of bert does")
    return trained.method, trained.tokenizer, network


def _rows(items: Items) -> Iterator[Int[Tensor, "B T"]]:
    """START text END in each, filled up with padding, some at a time and in order."""
    return (batch["text"] for batch in sequential(items, ROWS))


def _is_text(rows: Int[Tensor, "B T"], tokenizer: Tokenizer) -> Tensor:
    return (rows != tokenizer.pad) & (rows != tokenizer.start) & (rows != tokenizer.end)


def _layer(network: TextTransformer, layer: int | None) -> int:
    last = len(network.layers)
    layer = last if layer is None else layer
    if not 0 <= layer <= last:
        raise ValueError(f"layer must be 0 (the embeddings) to {last} (the last), got {layer}")
    return layer


def contextual_table(found: Contextual) -> Table:
    """The matrix for a terminal, sentences by number beside it."""
    numbers = [str(i + 1) for i in range(len(found.sentences))]
    caption = f'cosine of the vectors of "{found.word}", layer {found.layer}'
    caption += f"; {found.without} sentences do not have the word" if found.without else ""
    table = Table("", Column("sentence", overflow="fold"), *(Column(n, justify="right") for n in numbers), box=SIMPLE, caption=caption)
    for number, sentence, row in zip(numbers, found.sentences, found.similarity, strict=True):
        table.add_row(number, _near(sentence, found.word), *(f"{x:.2f}" for x in row))
    return table


def _near(sentence: str, word: str) -> str:
    """The sentence around the word."""
    at = sentence.lower().find(word.lower())
    begin, end = max(at - AROUND, 0), at + len(word) + AROUND
    return ("…" if begin else "") + sentence[begin:end] + ("…" if end < len(sentence) else "")


def contextual_picture(found: Contextual) -> str:
    """The matrix as SVG: the darker, the more alike."""
    side, left, n = 44, 520, len(found.sentences)
    low = float(min(found.similarity.min(), 0.999))
    parts = [f'<text x="0" y="18" font-weight="bold">{escape(found.word)}, layer {found.layer}: cosine of its vectors</text>']
    for i, sentence in enumerate(found.sentences):
        y = 36 + i * side
        parts.append(f'<text x="{left - 10}" y="{y + side / 2 + 5}" text-anchor="end">{escape(_near(sentence, found.word))} {i + 1}</text>')
        parts.append(f'<text x="{left + (i + 0.5) * side}" y="{36 + n * side + 18}" text-anchor="middle">{i + 1}</text>')
        for j, value in enumerate(found.similarity[i].tolist()):
            ink = (value - low) / (1 - low)
            box = f'x="{left + j * side}" y="{y}" width="{side - 2}" height="{side - 2}"'
            parts.append(
                f'<rect {box} fill="#1f4e79" fill-opacity="{0.08 + 0.92 * ink:.3f}"/>'
                f'<text x="{left + (j + 0.5) * side - 1}" y="{y + side / 2 + 4}" text-anchor="middle" '
                f'fill="{"#fff" if ink > 0.45 else "#222"}">{value:.2f}</text>'
            )
    size = f'width="{left + n * side + 10}" height="{36 + n * side + 30}"'
    style = 'font-family="system-ui, sans-serif" font-size="13" fill="#222"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def shifted_table(found: Sequence[Shifted]) -> Table:
    """What each factor does, for a terminal."""
    names = ["alpha", "other language %", *(["nearest is right %"] if found[0].matched is not None else [])]
    table = Table(*(Column(name, justify="right") for name in names), Column("what is read", overflow="fold"), box=SIMPLE)
    for row in found:
        matched = [] if row.matched is None else [f"{100 * row.matched:.1f}"]
        table.add_row(f"{row.alpha:g}", f"{100 * row.share:.1f}", *matched, "\n".join(row.texts))
    return table
