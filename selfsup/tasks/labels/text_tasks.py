"""What is asked of labelled text: a class, a score, a tag for each word; `answers.py` has the fourth, a span of a passage.

A task lays examples out as rows of token numbers, says what a wrong guess costs, reads the network's scores back into answers about the
examples, and counts how good they are. All are small linear layers on BERT's vectors (1810.04805, section 4 and appendix A.5).

Axes: N examples, B rows, T tokens, K scores of a row or token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.data.errors import BadDataError
from selfsup.data.text.labelled import Labelled, Questions, Tagged, Texts
from selfsup.data.text.tokenizer import Tokenizer, describe
from selfsup.evaluation.text_scores import accuracy, f1, pearson, spearman


class Rows(NamedTuple):
    """N examples as rows of token numbers, one or several for each.

    Attributes:
        ids: of each row, START text END, or START text END text END.
        targets: of each row, what `TextTask.loss` wants.
        owner: (rows,) number of the example.
        places: of each row, what `TextTask.read` wants to know beside it.
        notes: what happened to how many: "cut" texts, "split" sentences.
    """

    ids: list[np.ndarray]
    targets: list[np.ndarray]
    owner: np.ndarray
    places: list[np.ndarray]
    notes: dict[str, int]

    def of(self, examples: np.ndarray) -> np.ndarray:
        """Numbers of the rows of these examples."""
        return np.flatnonzero(np.isin(self.owner, examples))


class Said(NamedTuple):
    """What a network says of N examples.

    Attributes:
        values: of each, a class, a score, or the tags of its words.
        probabilities: of each, that of the value, or those of the words' tags; NaN of scores.
    """

    values: list[Any]
    probabilities: list[Any]


@runtime_checkable
class TextTask(Protocol):
    """What training and prediction need to know.

    Attributes:
        per_token: whether each token has scores (B, T, K), or each row (B, K).
    """

    per_token: ClassVar[bool]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none of scores and spans."""
        ...

    @property
    def outputs(self) -> int:
        """K."""
        ...

    def rows(self, data: Any, tokenizer: Tokenizer, length: int) -> Rows:
        """The examples, in rows of at most `length` tokens."""
        ...

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Mean cost over a batch; targets that are shorter than the longest end in -1."""
        ...

    def read(self, outputs: Sequence[np.ndarray], rows: Rows, data: Any) -> Said:
        """From the scores of each row, (K,) or (T, K), to what they say of each example."""
        ...

    def score(self, said: Said, data: Any) -> dict[str, float]:
        """How good that is, by the names of the measures, the chief one first."""
        ...

    def config(self) -> dict[str, Any]:
        """The arguments that make the same task again, as JSON can hold them, and its kind."""
        ...


@dataclass(frozen=True)
class Classes:
    """One of K classes for each text, or pair of texts, from the encoder's vector."""

    classes: tuple[str, ...]
    kind: ClassVar[str] = "classes"
    per_token: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """K."""
        return len(self.classes)

    def rows(self, data: Texts, tokenizer: Tokenizer, length: int) -> Rows:
        """START text END, or START first END second END; what is too long is cut."""
        number = {name: np.array([i]) for i, name in enumerate(self.classes)}
        targets = [number.get(name, np.array([-1])) for name in data.labels]  # type: ignore[arg-type]
        return text_rows(data, targets, tokenizer, length)

    def loss(self, scores: Float[Tensor, "B K"], target: Int[Tensor, "B 1"]) -> Tensor:
        """Cross entropy, in nats."""
        return F.cross_entropy(scores, target[:, 0], ignore_index=-1)

    def read(self, outputs: Sequence[np.ndarray], rows: Rows, data: Texts) -> Said:
        """The likeliest class."""
        p = torch.from_numpy(np.stack(outputs)).double().softmax(dim=1).numpy()
        best = p.argmax(axis=1)
        return Said([self.classes[c] for c in best], p[np.arange(len(p)), best].tolist())

    def score(self, said: Said, data: Texts) -> dict[str, float]:
        """Accuracy, and F1 averaged over the classes; a class that was not learned counts as wrong."""
        return _of_classes(said.values, data.labels)

    def config(self) -> dict[str, Any]:
        """Names of the classes."""
        return {"kind": self.kind, "classes": list(self.classes)}


@dataclass(frozen=True)
class Scores:
    """A number for each text, or pair of texts, by least squares; inside, of mean 0 and deviation 1."""

    mean: float
    deviation: float
    kind: ClassVar[str] = "scores"
    per_token: ClassVar[bool] = False

    @property
    def classes(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def outputs(self) -> int:
        """The score."""
        return 1

    def rows(self, data: Texts, tokenizer: Tokenizer, length: int) -> Rows:
        """As of `Classes`."""
        values = [np.nan if x is None else (float(x) - self.mean) / self.deviation for x in data.labels]
        return text_rows(data, [np.array([x], np.float32) for x in values], tokenizer, length)

    def loss(self, scores: Float[Tensor, "B 1"], target: Float[Tensor, "B 1"]) -> Tensor:
        """Mean square, in units of the variance."""
        return F.mse_loss(scores, target)

    def read(self, outputs: Sequence[np.ndarray], rows: Rows, data: Texts) -> Said:
        """The numbers, in the units of the data."""
        values = np.concatenate(outputs).astype(np.float64) * self.deviation + self.mean
        return Said(values.tolist(), [float("nan")] * len(values))

    def score(self, said: Said, data: Texts) -> dict[str, float]:
        """Correlations."""
        true = [float(x) for x in data.labels]  # type: ignore[arg-type]
        found = {"spearman": spearman(said.values, true), "pearson": pearson(said.values, true)}
        return {name: 0.0 if np.isnan(value) else value for name, value in found.items()}  # the same number for all says nothing

    def config(self) -> dict[str, Any]:
        """The units."""
        return {"kind": self.kind, "mean": self.mean, "deviation": self.deviation}


@dataclass(frozen=True)
class Tags:
    """One of K tags for each word, from the vector of its first piece (1810.04805, section 5.3)."""

    classes: tuple[str, ...]
    kind: ClassVar[str] = "tags"
    per_token: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        """K."""
        return len(self.classes)

    def rows(self, data: Tagged, tokenizer: Tokenizer, length: int) -> Rows:
        """Sentences that are too long are split between words, so that every word has a place; `places` are those of first pieces."""
        number = {name: i for i, name in enumerate(self.classes)}
        ids: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        places: list[np.ndarray] = []
        owner: list[int] = []
        split, room = 0, length - 2
        for n, (pieces, tags) in enumerate(zip(_pieces(data, tokenizer), data.tags, strict=True)):
            sizes = [min(len(piece), room) for piece in pieces]  # a word longer than a row loses its end
            begun, rows_before = 0, len(ids)
            while begun < len(pieces):
                end, taken = begun, 0
                while end < len(pieces) and taken + sizes[end] <= room:
                    taken += sizes[end]
                    end += 1
                first = 1 + np.concatenate([[0], np.cumsum(sizes[begun : end - 1], dtype=np.int64)]).astype(np.int64)
                row = np.concatenate([[tokenizer.start], *(p[:room] for p in pieces[begun:end]), [tokenizer.end]])
                target = np.full(len(row), -1, np.int64)
                target[first] = [number.get(tag, -1) for tag in tags[begun:end]]  # type: ignore[arg-type]
                ids.append(row)
                targets.append(target)
                places.append(first)
                owner.append(n)
                begun = end
            split += len(ids) - rows_before > 1
        return Rows(ids, targets, np.array(owner, np.int64), places, {"split": split})

    def loss(self, scores: Float[Tensor, "B T K"], target: Int[Tensor, "B T"]) -> Tensor:
        """Cross entropy of the words' tags, in nats."""
        return F.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum") / (target >= 0).sum().clamp(min=1)

    def read(self, outputs: Sequence[np.ndarray], rows: Rows, data: Tagged) -> Said:
        """The likeliest tag of every word."""
        values: list[list[str]] = [[] for _ in range(len(data))]
        probabilities: list[list[float]] = [[] for _ in range(len(data))]
        for scores, places, n in zip(outputs, rows.places, rows.owner, strict=True):
            p = torch.from_numpy(scores[places]).double().softmax(dim=1).numpy()
            best = p.argmax(axis=1)
            values[n] += [self.classes[c] for c in best]
            probabilities[n] += p[np.arange(len(p)), best].tolist()
        return Said(values, probabilities)

    def score(self, said: Said, data: Tagged) -> dict[str, float]:
        """Accuracy over words, and F1 averaged over the tags."""
        return _of_classes([tag for tags in said.values for tag in tags], [tag for tags in data.tags for tag in tags])

    def config(self) -> dict[str, Any]:
        """Names of the tags."""
        return {"kind": self.kind, "classes": list(self.classes)}


def text_rows(data: Texts, targets: list[np.ndarray], tokenizer: Tokenizer, length: int) -> Rows:
    """START text END, or START first END second END; of a pair that is too long, the longer text is cut first (the authors' code)."""
    start, end = [tokenizer.start], [tokenizer.end]
    first = tokenizer.encode(data.first)
    cut = 0
    if data.second is None:
        cut = sum(len(a) > length - 2 for a in first)
        ids = [np.concatenate([start, a[: length - 2], end]) for a in first]
    else:
        ids, room = [], length - 3
        for a, b in zip(first, tokenizer.encode(data.second), strict=True):
            kept_b = min(len(b), max(room // 2, room - len(a)))
            kept_a = min(len(a), room - kept_b)
            cut += kept_a + kept_b < len(a) + len(b)
            ids.append(np.concatenate([start, a[:kept_a], end, b[:kept_b], end]))
    return Rows(ids, targets, np.arange(len(ids)), [np.zeros(0, np.int64)] * len(ids), {"cut": cut})


def _pieces(data: Tagged, tokenizer: Tokenizer) -> list[list[np.ndarray]]:
    """The tokens of every word of every sentence; byte-level BPE marks what follows a space, so there each but the first has one."""
    spaced = describe(tokenizer.document) == "bpe"
    flat = [" " + word if spaced and i else word for words in data.words for i, word in enumerate(words)]
    pieces = tokenizer.encode_words(flat) if flat else []
    ends = np.cumsum([len(words) for words in data.words])
    return [pieces[end - len(words) : end] for end, words in zip(ends, data.words, strict=True)]


def _of_classes(said: Sequence[str], true: Sequence[str | None]) -> dict[str, float]:
    known = [(a, b) for a, b in zip(said, true, strict=True) if b is not None]
    a, b = [x for x, _ in known], [x for _, x in known]
    return {"accuracy": accuracy(a, b), "macro_f1": f1(a, b, "macro")}


def task_for(train: Labelled) -> TextTask:
    """The task that labelled data sets.

    Raises:
        BadDataError: labels are missing, all the same, or neither all scores nor all classes.
    """
    if isinstance(train, Questions):
        from selfsup.tasks.labels.answers import spans_for

        return spans_for(train)
    tags = train.tags if isinstance(train, Tagged) else (train.labels,)
    found = sorted({tag for some in tags for tag in some if tag is not None})
    what = "tags" if isinstance(train, Tagged) else "labels"
    if not found:
        raise BadDataError(f"{train.source} has no {what}; name their column with --label")
    if len(found) < 2:
        raise BadDataError(f'{train.source} has {what} of one class only ("{found[0]}"); at least 2 are needed')
    if isinstance(train, Tagged):
        return Tags(tuple(found))
    if all(map(_is_score, found)) and not all(float(name).is_integer() for name in found):
        values = np.array([float(name) for name in train.labels if name is not None])
        return Scores(float(values.mean()), float(values.std()))
    if len(found) > max(20, sum(name is not None for name in train.labels) // 2):
        raise BadDataError(
            f'{train.source}: {len(found)} classes among {len(train)} texts, such as "{found[0][:40]}"; choose the column with --label'
        )
    return Classes(tuple(found))


def _is_score(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def task_from(config: dict[str, Any]) -> TextTask:
    """The task of a saved configuration."""
    from selfsup.tasks.labels.answers import Spans

    kinds: dict[str, Any] = {"classes": Classes, "scores": Scores, "tags": Tags, "spans": Spans}
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key != "kind"}
    return kinds[config["kind"]](**said)


def only_labelled(data: Labelled) -> tuple[Labelled, int]:
    """What has a label, and how many examples have none."""
    if isinstance(data, Questions):
        return data, 0
    has = [x is not None for x in data.labels] if isinstance(data, Texts) else [any(x is not None for x in tags) for tags in data.tags]
    if all(has):
        return data, 0
    kept = np.flatnonzero(has).tolist()
    return data.subset(kept), len(has) - len(kept)
