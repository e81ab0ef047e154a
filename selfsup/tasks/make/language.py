"""What a language model is asked for: texts that go on from a prompt, and how well it predicts a text.

Axes: N texts, T tokens of a text, n tokens that are added.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from selfsup.abilities import Continues
from selfsup.data.text.documents import Corpus, Piece, open_corpus
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.evaluation import text_scores
from selfsup.tasks.pretraining.plan import check_numbers, choose_device
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method

ROWS = 32  # texts or windows at a time


class Continuation(NamedTuple):
    """One text that a model has made.

    Attributes:
        prompt: as it was given.
        text: the prompt as its tokens spell it, and what follows.
        tokens: that were added.
        ended: whether the text came to an end by itself.
    """

    prompt: str
    text: str
    tokens: int
    ended: bool


@torch.no_grad()
def continue_texts(
    run: str | Path | TrainedMethod,
    prompts: str | Sequence[str] = "",
    *,
    count: int = 1,
    tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    best: bool = False,
    device: str = "auto",
) -> list[Continuation]:
    """Texts drawn from a language model, such as a run of gpt.

    Args:
        run: a run's folder, or what `load_method` gave.
        prompts: what each text begins with; nothing for a text from its beginning.
        count: texts for each prompt.
        tokens: most tokens to add.
        temperature: of the draw, 0 or more; below 1 the likely becomes more likely, at 0 it is certain.
        top_k: draw from the k likeliest tokens only; 0 for all.
        top_p: draw from the likeliest tokens that together have this probability, above 0 to 1.
        seed: of the draw.
        best: the checkpoint with the best label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: the method cannot go on with a text, or a number is out of range.
    """
    check_numbers({"count": count, "tokens": tokens})
    trained, method, tokenizer = open_language(run, "go on with a text", best=best)
    where, made = choose_device(device), []
    trained.method.to(where)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            start = torch.tensor([[method.end, *tokenizer.encode([prompt])[0]]], device=where)
            for done in range(0, count, ROWS):
                rows = start.expand(min(ROWS, count - done), -1)
                drawn = method.go_on(rows, tokens, temperature=temperature, top_k=top_k, top_p=top_p)[:, 1:].tolist()
                made += [_until_its_end(ids, rows.shape[1] - 1, prompt, method.end, tokenizer) for ids in drawn]
    trained.method.cpu()
    return made


def _until_its_end(ids: list[int], given: int, prompt: str, end: int, tokenizer: Tokenizer) -> Continuation:
    new = ids[given:]
    ended = end in new
    new = new[: new.index(end)] if ended else new
    return Continuation(prompt, tokenizer.decode(ids[:given] + new), len(new), ended)


def open_language(run: str | Path | TrainedMethod, verb: str, *, best: bool = False) -> tuple[TrainedMethod, Continues, Tokenizer]:
    """A run that has the ability `Continues`, twice, and its tokenizer.

    Raises:
        ValueError: the run's method cannot do what the verb says.
    """
    trained = run if isinstance(run, TrainedMethod) else load_method(run, best=best)
    trained.require(Continues, verb)
    method: Any = trained.method
    assert trained.tokenizer is not None
    return trained, method, trained.tokenizer


@dataclass(frozen=True)
class Perplexity:
    """How well texts are predicted.

    Attributes:
        documents, tokens, bytes: that were predicted; bytes are those of the text in UTF-8.
        unknown: tokens that stand for anything the vocabulary lacks; where there are any, the other numbers are too good.
        nats: mean of -log p(token | those before it).
        perplexity: e to that.
        bits_per_byte: information in the text, by which models of different vocabularies can be compared.
    """

    documents: int
    tokens: int
    bytes: int
    unknown: int
    nats: float
    perplexity: float
    bits_per_byte: float

    def as_json(self) -> dict[str, Any]:
        """Every number by its name."""
        return asdict(self)


@torch.no_grad()
def perplexity(
    run: str | Path | TrainedMethod,
    data: Any,
    *,
    stride: int | None = None,
    column: str = "text",
    best: bool = False,
    device: str = "auto",
) -> Perplexity:
    """How well a language model predicts documents that it has not seen.

    A document longer than the model's positions is read in windows; every token is predicted once, with those before it in its window.

    Args:
        run: a run's folder, or what `load_method` gave.
        data: text, as pretrain takes it.
        stride: tokens by which windows move, 1 to the number of positions: fewer see more of what went before, and take longer; half of
            the positions when not given.
        column: of JSON and parquet.
        best: the checkpoint with the best label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: the method is no language model, there is no text, or the stride is out of range.
    """
    trained, method, tokenizer = open_language(run, "predict a text token by token", best=best)
    length = trained.config["encoder"]["text"]["length"]
    stride = max(length // 2, 1) if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be 1 to the model's {length} positions, got {stride}")
    where = choose_device(device)
    trained.method.to(where)
    log_p, documents, tokens, size, unknown = 0.0, 0, 0, 0, 0
    waiting: list[Part] = []
    for text in whole_documents(open_corpus(data, column=column)):
        (ids,) = tokenizer.encode([text])
        documents, tokens, size = documents + 1, tokens + len(ids), size + len(text.encode("utf-8", "surrogatepass"))
        unknown += int((ids == tokenizer.unknown).sum())
        waiting += windows(np.concatenate([[method.end], ids]), length, stride)
        while len(waiting) >= 8 * ROWS:
            log_p += float(log_likelihoods(method, waiting[: 8 * ROWS], where).sum())
            del waiting[: 8 * ROWS]
    log_p += float(log_likelihoods(method, waiting, where).sum())
    trained.method.cpu()
    if not tokens:
        raise ValueError(f"no token to predict in {data}")
    nats = -log_p / tokens
    return Perplexity(documents, tokens, size, unknown, nats, text_scores.perplexity([nats]), text_scores.bits_per_byte([-log_p], size))


def whole_documents(corpus: Corpus) -> Iterator[str]:
    """Every document of a corpus in one piece."""
    parts: list[str] = []
    for piece in chain(corpus, [Piece("", last=True)]):  # a damaged file ends in the middle of a document
        parts.append(piece.text)
        if piece.last:
            if any(parts):
                yield "".join(parts).strip("\n")
            parts = []


class Part(NamedTuple):
    """Tokens of a text that a model sees together.

    Attributes:
        ids: (T,) token numbers.
        first: of these, the first that counts; those before it are only seen. 1 or more.
    """

    ids: np.ndarray
    first: int


def windows(ids: np.ndarray, length: int, stride: int) -> Iterator[Part]:
    """A text as parts that a model of `length` positions can see, in which every token but the first counts once.

    Args:
        ids: (T,) token numbers.
        length: tokens that are predicted in a part at most.
        stride: by which parts move, 1 to length.
    """
    done, begin = 0, 0
    while done < len(ids) - 1:
        part = ids[begin : begin + length + 1]
        yield Part(part, done - begin + 1)
        done, begin = begin + len(part) - 1, begin + stride


def log_likelihoods(method: Continues, parts: Sequence[Part], device: torch.device) -> np.ndarray:
    """(N,) float64, for each part the sum of log p of its tokens that count, in nats."""
    found = np.zeros(len(parts))
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].ids))  # rows of much the same length need little padding
    for at in range(0, len(order), ROWS):
        some = [parts[i] for i in order[at : at + ROWS]]
        width = max(len(part.ids) for part in some)
        rows = np.stack([np.pad(part.ids, (0, width - len(part.ids)), constant_values=method.end) for part in some])
        said = method.log_likelihood(torch.from_numpy(rows).to(device)).double().cpu()
        found[order[at : at + ROWS]] = [float(x[part.first - 1 : len(part.ids) - 1].sum()) for x, part in zip(said, some, strict=True)]
    return found
