"""Linear probe: how much of the classes a linear map of frozen vectors can read.

Axes: N training rows, M test rows, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.evaluation.features import check_labelled, top1
from selfsup.evaluation.logistic import fit_logistic, logits_of

GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # strongest first: each solution starts the next
HELD_OUT = 0.2  # of each class, to choose among them
FALLBACK = 1e-3  # where no class has a row to spare


class LinearResult(NamedTuple):
    """What a linear probe found."""

    top1: float  # fraction of test rows, 0 to 1
    weight_decay: float  # the l2 that was chosen: mean cross entropy + l2/2 |W|^2 on standardised vectors


def linear_probe(
    train_x: Float[Tensor, "N D"],
    train_y: Int[Tensor, " N"],
    test_x: Float[Tensor, "M D"],
    test_y: Int[Tensor, " M"],
    *,
    seed: int = 0,
    grid: Sequence[float] = GRID,
) -> LinearResult:
    """Multinomial logistic regression on vectors standardised by the training set; test labels only count what was right.

    The penalty is the one of `grid` with the best accuracy on 20 % of each class of the training set (ties: the lower cross entropy); then
    all training rows are fitted with it. Classes that the training set lacks are never predicted. Deterministic for a seed.

    Args:
        train_y, test_y: classes, 0 or above.
        seed: of the held-out split.
        grid: penalties to choose from, above 0, strongest first.
    Raises:
        ValueError: no rows, unknown (negative) labels, vectors that are not finite, an empty grid or a penalty not above 0.
    """
    check_labelled(train_x, train_y, test_x, test_y)
    if not grid or min(grid) <= 0:
        raise ValueError(f"grid must hold penalties above 0, got {tuple(grid)}")
    names, y = train_y.unique(return_inverse=True)  # 0 to C - 1 even where some class is absent
    mean, scale = standardisation(train_x)
    x = (train_x - mean) / scale
    held = held_out(y, HELD_OUT, seed)
    l2, start = (FALLBACK, None) if not held.any() else _choose(x, y, held, len(names), grid)
    w = fit_logistic(x[None], y[None], len(names), _penalty(l2, x), start=start)
    predicted = [names[logits_of(((part - mean) / scale)[None], w)[0, 0].argmax(dim=1)] for part in test_x.split(8192)]
    return LinearResult(top1(torch.cat(predicted), test_y), l2)


def standardisation(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and deviation of each dimension; the deviation of a constant one is given as 1, so that it becomes 0 and not NaN."""
    mean = x.mean(dim=0)
    scale = x.std(dim=0, unbiased=False)
    constant = scale <= 1e-6 * (mean.abs() + scale.max())
    return mean, torch.where(constant, torch.ones_like(scale), scale)


def held_out(y: Int[Tensor, " N"], fraction: float, seed: int) -> Tensor:
    """(N,) bool, True for `fraction` of each class, at least one row of it; a class with a single row keeps it for training."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(y), dtype=torch.bool)
    for c in y.unique():
        rows = (y == c).nonzero()[:, 0].cpu()
        count = max(round(fraction * len(rows)), 1) if len(rows) > 1 else 0
        held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held.to(y.device)


def _choose(x: Tensor, y: Tensor, held: Tensor, classes: int, grid: Sequence[float]) -> tuple[float, Tensor]:
    """The penalty that does best on the held-out rows, and its solution; walks from strong to weak, each starting the next."""
    fit_x, fit_y, held_x, held_y = x[~held][None], y[~held][None], x[held][None], y[held]
    best: tuple[tuple[float, float], float, Tensor] | None = None
    w: Tensor | None = None
    for l2 in grid:
        w = fit_logistic(fit_x, fit_y, classes, _penalty(l2, x), start=w)
        scores = logits_of(held_x, w)[0, 0]
        merit = (top1(scores.argmax(dim=1), held_y), -float(torch.nn.functional.cross_entropy(scores, held_y)))
        if best is None or merit > best[0]:
            best = (merit, l2, w)
    assert best is not None
    return best[1], best[2]


def _penalty(l2: float, x: Tensor) -> Tensor:
    return torch.full((1, 1), l2, dtype=torch.float64, device=x.device)
