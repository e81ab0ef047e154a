"""Extractive answers: two learned vectors say where a span of a passage begins and ends (1810.04805, sections 4.2 and 4.3).

Long passages are split into windows that overlap by half. Where none of a window's tokens begins or ends the answer, START does.

Axes: N questions, B windows, T tokens of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.data.errors import BadDataError
from selfsup.data.text.labelled import Question, Questions
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.evaluation.text_scores import exact_match, span_f1
from selfsup.tasks.labels.text_tasks import Rows, Said

LONGEST_QUESTION = 64  # tokens; the authors'


class Span(NamedTuple):
    """Where an answer stands: tokens first to last of a window, and the sum of their two scores."""

    first: int
    last: int
    score: float


@dataclass(frozen=True)
class Spans:
    """The span of a passage that answers a question.

    Attributes:
        language: "zh" counts the scores of Chinese by characters, see `selfsup.evaluation.text_scores`.
        none: whether "there is no answer" is one, as in SQuAD 2.0.
        longest: most tokens of an answer; the authors' is 30.
    """

    language: Literal["en", "zh"]
    none: bool = False
    longest: int = 30
    kind: ClassVar[str] = "spans"
    per_token: ClassVar[bool] = True

    @property
    def classes(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def outputs(self) -> int:
        """Of the first token, and of the last."""
        return 2

    def rows(self, data: Questions, tokenizer: Tokenizer, length: int) -> Rows:
        """START question END part of passage END.

        `targets` are the first and last token of the answer, 0 and 0 where it is not in the window, and the tokens from and to which the
        passage goes; `places` are the characters (n, 2) of each of its tokens.
        """
        passages = {q.passage: tokenizer.encode_with_offsets(data.passages[q.passage]) for q in data.asked}
        questions = tokenizer.encode([q.text for q in data.asked])
        ids: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        places: list[np.ndarray] = []
        owner: list[int] = []
        split = misplaced = 0
        for n, (q, asks) in enumerate(zip(data.asked, questions, strict=True)):
            asks = asks[: min(LONGEST_QUESTION, (length - 3) // 2)]
            text, offsets = passages[q.passage]
            answer = _tokens_of(q, data.passages[q.passage], offsets)
            misplaced += answer is None and bool(q.answers)
            before, room = len(asks) + 2, length - 3 - len(asks)
            windows = [(begin, min(begin + room, len(text))) for begin in window_starts(len(text), room)]
            split += len(windows) > 1
            for begin, end in windows:
                inside = answer is not None and begin <= answer[0] and answer[1] < end
                at = (answer[0] - begin + before, answer[1] - begin + before) if inside and answer is not None else (0, 0)
                ids.append(np.concatenate([[tokenizer.start], asks, [tokenizer.end], text[begin:end], [tokenizer.end]]))
                targets.append(np.array([*at, before, before + end - begin], np.int64))
                places.append(offsets[begin:end])
                owner.append(n)
        notes = {"split": split, "misplaced": misplaced}
        return Rows(ids, targets, np.array(owner, np.int64), places, notes)

    def loss(self, scores: Float[Tensor, "B T 2"], target: Int[Tensor, "B 4"]) -> Tensor:
        """Mean of the cross entropies of both ends over START and the passage's tokens, in nats."""
        at = torch.arange(scores.shape[1], device=scores.device)
        legal = (at >= target[:, 2:3]) & (at < target[:, 3:4]) | (at == 0)
        scores = scores.masked_fill(~legal.unsqueeze(2), -torch.inf)
        return (F.cross_entropy(scores[..., 0], target[:, 0]) + F.cross_entropy(scores[..., 1], target[:, 1])) / 2

    def read(self, outputs: Sequence[np.ndarray], rows: Rows, data: Questions) -> Said:
        """The legal span with the largest sum of scores over all windows of the question; "" where that there is none scores more."""
        best: list[tuple[float, str, float]] = [(-np.inf, "", 1.0)] * len(data)
        nothing = np.full(len(data), np.inf)
        for scores, target, offsets, n in zip(outputs, rows.targets, rows.places, rows.owner, strict=True):
            begin, end = int(target[2]), int(target[3])
            nothing[n] = min(nothing[n], float(scores[0].sum()))
            if end > begin:
                span = best_span(scores[begin:end, 0], scores[begin:end, 1], self.longest)
                if span.score > best[n][0]:
                    legal = np.concatenate([scores[:1], scores[begin:end]]).astype(np.float64)
                    p = np.exp(span.score - np.logaddexp.reduce(legal[:, 0]) - np.logaddexp.reduce(legal[:, 1]))
                    text = data.passages[data.asked[n].passage][offsets[span.first, 0] : offsets[span.last, 1]].strip()
                    best[n] = (span.score, text, float(p))
        if self.none:
            best = [(0.0, "", 1 - p) if nothing[n] > score else (score, text, p) for n, (score, text, p) in enumerate(best)]
        return Said([text for _, text, _ in best], [p for *_, p in best])

    def score(self, said: Said, data: Questions) -> dict[str, float]:
        """Mean exact match and F1, the best over the answers that count as right."""
        right = [[text for text, _ in q.answers] for q in data.asked]
        pairs = list(zip(said.values, right, strict=True))
        return {
            "exact_match": float(np.mean([exact_match(value, answers, self.language) for value, answers in pairs])),
            "f1": float(np.mean([span_f1(value, answers, self.language) for value, answers in pairs])),
        }

    def config(self) -> dict[str, Any]:
        """The settings."""
        return {"kind": self.kind, "language": self.language, "none": self.none, "longest": self.longest}


def best_span(begins: Float[np.ndarray, " n"], ends: Float[np.ndarray, " n"], longest: int) -> Span:
    """The largest begins[i] + ends[j] with i <= j < i + longest; of equal ones the first, of these the shortest."""
    n, longest = len(begins), min(longest, len(begins))
    padded = np.concatenate([ends.astype(np.float64), np.full(longest - 1, -np.inf)])
    sums = begins.astype(np.float64)[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)  # (n, longest)
    i, more = divmod(int(sums.argmax()), longest)
    return Span(i, min(i + more, n - 1), float(sums[i, more]))


def window_starts(n: int, room: int) -> list[int]:
    """Where windows of `room` tokens begin so that they cover n, each half a window after the one before, the last at the end."""
    return [*range(0, max(1, n - room), max(1, room // 2)), *([n - room] if n > room else [])]


def _tokens_of(q: Question, passage: str, offsets: np.ndarray) -> tuple[int, int] | None:
    """First and last token of the first answer; None without one, or where it does not stand where the data say and nowhere else."""
    if not q.answers or not len(offsets):
        return None
    text, begin = q.answers[0]
    if passage[begin : begin + len(text)] != text:
        begin = passage.find(text)
    held = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < begin + len(text))) if begin >= 0 and text else []
    return (int(held[0]), int(held[-1])) if len(held) else None


def spans_for(train: Questions) -> Spans:
    """The task that these questions set: their language is Chinese where most letters are.

    Raises:
        BadDataError: none of them has an answer.
    """
    if not any(q.answers for q in train.asked):
        raise BadDataError(f"{train.source} has no answers to learn from")
    letters = [c for passage in train.passages[:50] for c in passage if c.isalpha()]
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in letters) > len(letters) / 2
    return Spans("zh" if chinese else "en", none=not all(q.answers for q in train.asked))
