"""Scores of strangeness: distances to what is normal, a threshold for a wanted rate of false alarms, and what scores are worth with labels.

A higher score is stranger. Axes: M items to score, N normal items, D width, k neighbours.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

DRAWS = 1000  # of the bootstrap
QUERY_CHUNK, KEY_CHUNK = 512, 16_384  # rows; a block of distances takes 32 MiB


class Measured(NamedTuple):
    """A measure, and where 95 of 100 resamples of the items put it."""

    value: float
    low: float
    high: float


def roc_auc(scores: Float[np.ndarray, " M"], anomalous: Bool[np.ndarray, " M"]) -> float:
    """How often an anomaly scores above a normal item, of all pairs of both; a tie counts half (Mann and Whitney). 0.5 is chance.

    Raises:
        ValueError: not as many scores as answers, NaN, or one of the two kinds is missing.
    """
    return _auc(*_counts(scores, anomalous)[:2])


def average_precision(scores: Float[np.ndarray, " M"], anomalous: Bool[np.ndarray, " M"]) -> float:
    """Sum over thresholds, from the strictest on, of precision times the recall that it adds; items that tie come in together.

    Chance is the share of anomalies.

    Raises:
        ValueError: as `roc_auc`.
    """
    return _precision(*_counts(scores, anomalous)[:2])


def measure(scores: Float[np.ndarray, " M"], anomalous: Bool[np.ndarray, " M"], *, seed: int = 0) -> dict[str, Measured]:
    """ "roc_auc" and "average_precision" with 95 % intervals: percentiles over 1,000 resamples of the anomalies and of the normal items.

    Raises:
        ValueError: as `roc_auc`.
    """
    strange, normal, place = _counts(scores, anomalous)
    kinds, random = [place[anomalous], place[~anomalous]], np.random.default_rng(seed)
    drawn = np.empty((DRAWS, 2))
    for i in range(DRAWS):
        counts = [np.bincount(kind[random.integers(len(kind), size=len(kind))], minlength=len(strange)) for kind in kinds]
        drawn[i] = _auc(*counts), _precision(*counts)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    values = _auc(strange, normal), _precision(strange, normal)
    names = ("roc_auc", "average_precision")
    return {name: Measured(v, float(a), float(b)) for name, v, a, b in zip(names, values, low, high, strict=True)}


def _counts(scores: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many anomalies and how many normal items have each score, in ascending order, and (M,) where each item's score stands there."""
    if scores.shape != anomalous.shape or np.isnan(scores).any():
        raise ValueError(f"expected a score that is a number for each of {len(anomalous)} items, got {scores.shape}")
    if anomalous.all() or not anomalous.any():
        raise ValueError(f"needs anomalies and normal items, got {int(anomalous.sum())} anomalies among {len(anomalous)} items")
    values, place = np.unique(scores, return_inverse=True)
    strange = np.bincount(place[anomalous], minlength=len(values))
    return strange, np.bincount(place[~anomalous], minlength=len(values)), place


def _auc(strange: np.ndarray, normal: np.ndarray) -> float:
    below = np.cumsum(normal) - normal
    return float((strange * (below + normal / 2)).sum() / (strange.sum() * normal.sum()))


def _precision(strange: np.ndarray, normal: np.ndarray) -> float:
    hits, alarms = np.cumsum(strange[::-1]), np.cumsum((strange + normal)[::-1])
    precision = hits / np.maximum(alarms, 1)  # no alarms, no hits: counts nothing
    return float((precision * strange[::-1]).sum() / strange.sum())


class Threshold(NamedTuple):
    """An item whose score is above `value` is flagged.

    Attributes:
        value: of a score.
        wanted: rate of false alarms that was asked for, 0 to 1.
        expected: the most that may be expected of normal items like the held-out ones; above `wanted` where these are too few.
        held_out: normal items that it was found on, n; no rate below 1 / (n + 1) can be had from them.
    """

    value: float
    wanted: float
    expected: float
    held_out: int


def find_threshold(held_out: Float[np.ndarray, " n"], false_alarms: float) -> Threshold:
    """The lowest threshold that another normal item exceeds with a chance of at most `false_alarms`, by order statistics.

    A new item is as likely to come at any of n + 1 places among n normal ones, so it exceeds the j-th smallest with a chance of at most
    (n + 1 - j) / (n + 1), whatever the distribution.

    Raises:
        ValueError: no held-out scores, or a rate outside of (0, 1).
    """
    n = len(held_out)
    if n < 1 or not 0 < false_alarms < 1:
        raise ValueError(f"a threshold needs normal items and a rate of false alarms between 0 and 1, got {n} and {false_alarms}")
    j = min(n, math.ceil((n + 1) * (1 - false_alarms) - 1e-9))
    return Threshold(float(np.sort(held_out)[j - 1]), false_alarms, (n + 1 - j) / (n + 1), n)


@torch.no_grad()
def neighbour_distance(queries: Float[Tensor, "M D"], normal: Float[Tensor, "N D"], k: int) -> Float[Tensor, " M"]:
    """Mean Euclidean distance to the k nearest of the normal vectors; both sides in chunks, so that no (M, N) matrix exists.

    Raises:
        ValueError: k is not in 1..N.
    """
    if not 1 <= k <= len(normal):
        raise ValueError(f"k must be between 1 and the number of normal items to compare with, {len(normal)}; got {k}")
    found = [distances.mean(dim=1) for distances in _nearest(queries, normal, k)]
    return torch.cat(found) if found else queries.new_empty(0)


def _nearest(queries: Tensor, normal: Tensor, k: int) -> Iterator[Tensor]:
    for q in queries.split(QUERY_CHUNK):
        best = q.new_empty(len(q), 0)
        for keys in normal.split(KEY_CHUNK):
            # Not by the product of both: it loses small distances between long vectors.
            block = torch.cdist(q, keys, compute_mode="donot_use_mm_for_euclid_dist" if q.shape[1] <= 32 else "use_mm_for_euclid_dist")
            best = torch.cat([best, block.topk(min(k, block.shape[1]), dim=1, largest=False).values], dim=1)
            best = best.topk(min(k, best.shape[1]), dim=1, largest=False).values
        yield best


class Standard(NamedTuple):
    """Centre and scale of each dimension."""

    mean: Float[Tensor, " D"]
    std: Float[Tensor, " D"]

    def __call__(self, z: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Vectors in standard deviations of the normal ones."""
        return (z - self.mean) / self.std


def standard(normal: Float[Tensor, "N D"]) -> Standard:
    """Of the normal vectors; a dimension that is constant in them keeps its scale."""
    std = normal.std(dim=0, correction=0)
    return Standard(normal.mean(dim=0), torch.where(std > 1e-6 * normal.abs().amax(dim=0), std, torch.ones_like(std)))
