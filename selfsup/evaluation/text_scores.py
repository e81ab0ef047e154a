"""The scores that the benchmarks of text are counted in, by their official definitions; all as fractions of 1, none in per cent.

GLUE (1804.07461) counts accuracy, F1, Matthews correlation, Pearson and Spearman; SQuAD (1606.05250) exact match and F1 of a span;
CMRC 2018 (1810.07366) the same two for Chinese; language models nats or bits.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from selfsup.evaluation.measures import spearman

__all__ = ["accuracy", "bits_per_byte", "exact_match", "f1", "matthews", "pearson", "perplexity", "span_f1", "spearman"]

_ENGLISH = frozenset(string.punctuation)
_CHINESE = frozenset(
    "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
)  # as CMRC's script lists them; it also writes ……, which no character equals
_SEGMENT = re.compile("[\u4e00-\u9fa5]|(?:(?![\u4e00-\u9fa5])\\w)+|\\S")


def accuracy(predicted: Any, true: Any) -> float:
    """Share of items whose predicted class is the true one, 0 to 1.

    Args:
        predicted, true: (N,) classes, numbers or names, in a sequence, array or tensor.

    Raises:
        ValueError: not the same number of both, or none.
    """
    p, t = _both(predicted, true)
    return float((p == t).mean())


def f1(predicted: Any, true: Any, average: Literal["binary", "macro"] = "binary") -> float:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN), 0 to 1.

    Args:
        predicted, true: (N,) classes.
        average: "binary" is of class 1, as in MRPC and QQP, and 0 where nobody says 1; "macro" is the plain mean over all classes that are
            predicted or true somewhere.

    Raises:
        ValueError: not the same number of both, none, or other classes than 0 and 1 for "binary".
    """
    p, t = _both(predicted, true)
    classes = np.union1d(p, t)
    if average == "macro":
        return float(np.mean([_f1_of(p == c, t == c) for c in classes]))
    if average != "binary":
        raise ValueError(f"average must be binary or macro, got {average!r}")
    if not np.isin(classes, [0, 1]).all():
        raise ValueError(f'F1 of two classes needs 0 and 1, got {", ".join(map(str, classes[:5]))}; average over more with "macro"')
    return _f1_of(p == 1, t == 1)


def _f1_of(predicted: np.ndarray, true: np.ndarray) -> float:
    either = int(predicted.sum() + true.sum())
    return 2 * int((predicted & true).sum()) / either if either else 0.0


def matthews(predicted: Any, true: Any) -> float:
    """Correlation of predicted and true classes, -1 to 1; 0 where one of them never changes. CoLA's score.

    For two classes (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)); for more, Gorodkin's R_K (2004), which is the same of two.

    Args:
        predicted, true: (N,) classes.

    Raises:
        ValueError: not the same number of both, or none.
    """
    p, t = _both(predicted, true)
    classes, number = np.unique(np.concatenate([p, t]), return_inverse=True)
    said, real = np.bincount(number[: len(p)], minlength=len(classes)), np.bincount(number[len(p) :], minlength=len(classes))
    n, said, real = len(p), said.astype(float), real.astype(float)
    spread = (n * n - said @ said) * (n * n - real @ real)
    return float((n * (p == t).sum() - said @ real) / math.sqrt(spread)) if spread > 0 else 0.0


def pearson(a: Any, b: Any) -> float:
    """Linear correlation of paired figures, -1 to 1; NaN where one of them never changes.

    Args:
        a, b: (N,) figures.

    Raises:
        ValueError: not the same number of both, or fewer than two.
    """
    x, y = (np.asarray(_array(v), np.float64) for v in (a, b))
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"a correlation needs two figures or more, as many of both; got {len(x)} and {len(y)}")
    if (x == x[0]).all() or (y == y[0]).all():  # the mean of equal figures may differ from them by rounding
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def perplexity(nll: Any) -> float:
    """exp of the mean negative log-likelihood of a token, 1 and more; infinite where that overflows.

    Args:
        nll: (N,) of every token that was predicted, in nats.

    Raises:
        ValueError: there is none.
    """
    x = np.asarray(_array(nll), np.float64)
    if not x.size:
        raise ValueError("perplexity needs the likelihood of at least one token, got none")
    mean = float(x.mean())
    return math.exp(mean) if mean < 700 else math.inf if not math.isnan(mean) else math.nan


def bits_per_byte(nll: Any, n_bytes: int) -> float:
    """Bits that the model needs for a byte of the text, which no tokenizer changes; 8 of a model that knows nothing of bytes.

    Args:
        nll: (N,) of every token, in nats; its sum counts.
        n_bytes: length of the same text in UTF-8.

    Raises:
        ValueError: no bytes.
    """
    if n_bytes < 1:
        raise ValueError(f"bits per byte needs at least one byte of text, got {n_bytes}")
    return float(np.asarray(_array(nll), np.float64).sum() / math.log(2) / n_bytes)


def exact_match(prediction: str, answers: Sequence[str], language: Literal["en", "zh"] = "en") -> float:
    """1 where the prediction is one of the answers but for what does not count, else 0.

    Args:
        prediction: the span.
        answers: all that are right; none, or only empty ones, where the question has no answer, and "" is right.
        language: "en" is SQuAD's: case, ASCII punctuation, the words a, an and the, and white space do not count; "zh" is CMRC's: case,
            outer white space and its list of punctuation do not count.
    """
    return float(_bare(prediction, language) in _answers(answers, language))


def span_f1(prediction: str, answers: Sequence[str], language: Literal["en", "zh"] = "en") -> float:
    """The best F1 of the prediction with one of the answers, 0 to 1.

    Args:
        prediction: the span.
        answers: all that are right; none, or only empty ones, where the question has no answer: 1 for "" then, else 0.
        language: "en" is SQuAD's, of the words that both have, after `exact_match`'s normalisation; "zh" is CMRC's, of the longest run
            of Chinese characters and foreign words that both have.
    """
    shared = _shared if language == "en" else _longest_run
    p, best = _parts(prediction, language), 0.0
    for t in (_parts(answer, language) for answer in _answers(answers, language)):
        best = max(best, 2 * shared(p, t) / (len(p) + len(t)) if p and t else float(p == t))  # no answer agrees with no answer only
    return best


def _shared(p: list[str], t: list[str]) -> int:
    return (Counter(p) & Counter(t)).total()


def _longest_run(p: list[str], t: list[str]) -> int:
    best, above = 0, [0] * (len(t) + 1)
    for x in p:
        row = [0] * (len(t) + 1)
        for j, y in enumerate(t):
            if x == y:
                row[j + 1] = above[j] + 1
        best, above = max(best, *row), row
    return best


def _bare(text: str, language: str) -> str:
    if language not in ("en", "zh"):
        raise ValueError(f"language must be en or zh, got {language!r}")
    if language == "zh":
        return "".join(c for c in text.lower().strip() if c not in _CHINESE)
    text = "".join(c for c in text.lower() if c not in _ENGLISH)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _parts(text: str, language: str) -> list[str]:
    """English words; or each Chinese character alone, and words and marks between them in the place of NLTK's tokens."""
    bare = _bare(text, language)
    return bare.split() if language == "en" else _SEGMENT.findall(bare)


def _answers(answers: Sequence[str], language: str) -> list[str]:
    """Right answers without what does not count; [""] for a question without one."""
    if isinstance(answers, str):
        raise ValueError(f"answers must be a list of strings, got one string: [{answers!r}]")
    return [bare for bare in (_bare(answer, language) for answer in answers) if bare] or [""]


def _both(predicted: Any, true: Any) -> tuple[np.ndarray, np.ndarray]:
    p, t = _array(predicted), _array(true)
    if p.shape != t.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"predicted and true must be two lists of one length, at least one item; got shapes {p.shape} and {t.shape}")
    return p, t


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
