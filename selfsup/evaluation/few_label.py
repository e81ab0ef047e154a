"""Few-label curve: what a classifier reaches with 1, 2, 5, ... labels a class on top of frozen vectors, with its uncertainty.

Axes: N training rows, M test rows, D width, C classes, S seeds.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.evaluation.features import check_labelled
from selfsup.evaluation.logistic import LogisticRegression, Scaling, logits_of

COUNTS = (1, 2, 5, 10, 20, 50, 100)
GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # penalties to cross-validate over, strongest first, for vectors of about unit length
FALLBACK = 1e-3  # below FOLDS labels a class, where there is nothing to validate on
FOLDS = 5
DRAWS = 2**20  # weights of one fold that are solved for together
NORMAL_95 = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """A mean over seeds and the 95 % interval of that mean; fractions of 1."""

    mean: float
    low: float
    high: float


def few_label(
    train_x: Float[Tensor, "N D"],
    train_y: Int[Tensor, " N"],
    test_x: Float[Tensor, "M D"],
    test_y: Int[Tensor, " M"],
    *,
    counts: Sequence[int] = COUNTS,
    seeds: int = 5,
) -> dict[str, Interval]:
    """Test accuracy of logistic regression on n labelled rows of each class, over several draws of those rows.

    Vectors are centred and scaled by the whole training set, which needs no labels (`Scaling`), so that every kind of vector meets the same
    penalties. With at least 5 labels a class the penalty is the one with the best cross entropy in a 5-fold cross-validation within the
    labelled rows, tried from the strongest until it rises for all draws; below that it is 1e-3 for everyone. Test labels only count what
    was right.

    Args:
        train_y, test_y: classes, 0 or above; those that train_y lacks are never predicted.
        counts: labels a class; counts above the smallest training class are left out (`left_out` says which and why).
        seeds: number of draws, 0 to seeds - 1; draws of one seed are nested, and the same for all vectors of the same training set.
    Returns:
        By count, as a string: mean and 95 % interval.
    Raises:
        ValueError: no rows, unknown (negative) labels, vectors that are not finite, fewer than 2 seeds, a count below 1.
    """
    check_labelled(train_x, train_y, test_x, test_y)
    if seeds < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {seeds}")
    names, y = train_y.unique(return_inverse=True)
    scaled = Scaling(train_x)
    train_z, test_z = scaled(train_x), scaled(test_x)
    curve = {}
    for count in usable_counts(train_y, counts):
        rows = torch.stack([labelled_rows(train_y, count, seed) for seed in range(seeds)])
        # All draws at once, unless there are very many classes.
        w = torch.cat(
            [fit_heads(train_z[part], y[part], len(names)) for part in rows.split(max(1, DRAWS // (len(names) * train_z.shape[1])))]
        )
        right = [
            (names[logits_of(part.expand(seeds, -1, -1), w)[:, 0].argmax(dim=2)] == truth).sum(dim=1)
            for part, truth in zip(test_z.split(2048), test_y.split(2048), strict=True)
        ]
        curve[str(count)] = interval((torch.stack(right).sum(dim=0).double() / len(test_y)).tolist())
    return curve


def usable_counts(y: Int[Tensor, " N"], counts: Sequence[int] = COUNTS) -> list[int]:
    """Those counts for which every class in y has that many rows, ascending."""
    if not counts or min(counts) < 1:
        raise ValueError(f"counts must hold numbers of labels a class, 1 or more; got {tuple(counts)}")
    smallest = int(y.unique(return_counts=True)[1].min())
    return sorted({n for n in counts if n <= smallest})


def left_out(y: Int[Tensor, " N"], counts: Sequence[int] = COUNTS, classes: Sequence[str] = ()) -> dict[str, str]:
    """Why counts are not in the curve, by count, in words; empty when all are."""
    names, sizes = y.unique(return_counts=True)
    smallest = int(sizes.argmin())
    c, size = int(names[smallest]), int(sizes[smallest])
    name = f'"{classes[c]}"' if c < len(classes) else str(c)
    kept = usable_counts(y, counts)
    return {str(n): f"class {name} has only {size} labelled training items" for n in sorted(set(counts)) if n not in kept}


def labelled_rows(y: Int[Tensor, " N"], count: int, seed: int) -> Int[Tensor, " rows"]:
    """`count` rows of each class that occurs in y, drawn by seed; ordered by class, and nested: a larger count adds to a smaller one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for c in y.unique():
        rows = (y == c).nonzero()[:, 0].cpu()
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    return torch.cat(drawn).to(y.device)


def interval(values: Sequence[float], level: float = 0.95, *, largest: float = 1.0) -> Interval:
    """Mean of fractions and the interval that holds their true mean with probability `level`, by Student's t; clipped to [0, largest].

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, got {n}")
    mean = sum(values) / n
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    reach = t_quantile(level, n - 1) * error
    return Interval(mean, max(0.0, mean - reach), min(largest, mean + reach))


@cache
def t_quantile(level: float, freedom: int) -> float:
    """The t with P(|T| < t) = level for Student's distribution with `freedom` degrees; 2.776 at (0.95, 4)."""
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"t_quantile needs 0 < level < 1 and at least 1 degree of freedom, got {level} and {freedom}")

    def within(angle: float) -> float:  # Abramowitz and Stegun 26.7.3 and 26.7.4, with t = sqrt(freedom) tan(angle)
        odd = freedom % 2
        term = math.cos(angle) if odd else 1.0
        total = term if freedom > 1 else 0.0
        for k in range(2 if odd else 1, freedom - 1, 2):
            term *= k / (k + 1) * math.cos(angle) ** 2
            total += term
        return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Fraction right / n and the interval that holds its true value with probability `level` (Wilson, JASA 1927).

    Unlike the mean and its standard error, it stays within [0, 1] and has a length where all n are right.

    Raises:
        ValueError: not 0 <= right <= n, or n below 1.
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"a fraction of n items needs n of at least 1 and 0 to n right ones, got {right} of {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def fit_heads(x: Float[Tensor, "S n D"], y: Int[Tensor, "S n"], classes: int) -> Float[Tensor, "S 1 width C"]:
    """Logistic regression on each draw: weights for the D numbers of a row and the bias last (D + 1 in all), as `logits_of` takes them.

    The penalty is chosen within the draw, by 5-fold cross-validation where each class has at least 5 rows, and is 1e-3 elsewhere.

    Args:
        x: rows in the units of `Scaling`.
        y: 0 to classes - 1, each of which occurs in each draw.
    """
    sets = len(x)
    chosen = torch.full((sets, 1), FALLBACK, dtype=torch.float64, device=x.device)
    if min(int(row.bincount(minlength=classes).min()) for row in y) >= FOLDS:
        fold = _places(y) % FOLDS  # within each class one fold after the other
        trained = (fold[:, None] != torch.arange(FOLDS, device=x.device)[:, None]).to(x.dtype)  # (S, FOLDS, n)
        problem, solution, losses = LogisticRegression(x, y, classes, trained), None, []
        truth = y[:, None, :, None].expand(-1, FOLDS, -1, 1)
        for l2 in GRID:  # from strong to weak, each solution starting the next
            solution = problem.solve(torch.full((sets, FOLDS), l2, device=x.device), start=solution, tolerance=1e-3)
            loss = -logits_of(x, problem.weights(solution)).log_softmax(dim=3).gather(3, truth)[..., 0]  # (S, FOLDS, n)
            losses.append((loss * (1 - trained)).sum(dim=(1, 2)))
            if bool((losses[-1] > torch.stack(losses).amin(dim=0)).all()):
                break  # past the best of every draw: weaker ones fit the noise still better, and take longest
        chosen = chosen.new_tensor(GRID)[torch.stack(losses).argmin(dim=0)][:, None]
    problem = LogisticRegression(x, y, classes)
    return problem.weights(problem.solve(chosen))


def _places(y: Int[Tensor, "S n"]) -> Int[Tensor, "S n"]:
    """The number of each row among those of its class, from 0."""
    ordered, order = y.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)  # where each class begins
    return torch.empty_like(y).scatter_(1, order, torch.arange(y.shape[1], device=y.device) - first)
