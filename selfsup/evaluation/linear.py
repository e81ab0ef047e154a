"""Linear probe: how much of the classes a linear map of frozen vectors can read.

Axes: N training rows, M test rows, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.evaluation.features import check_labelled, top1
from selfsup.evaluation.logistic import LogisticRegression, Scaling, logits_of

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # strongest first: each solution starts the next
HELD_OUT = 0.2  # of each class, to choose among them
FALLBACK = 1e-3  # where no class has a row to spare


class LinearResult(NamedTuple):
    """What a linear probe found."""

    top1: float  # fraction of test rows, 0 to 1
    weight_decay: float  # the l2 that was chosen: mean cross entropy + l2/2 |W|^2 on vectors of unit mean square length


def linear_probe(
    train_x: Float[Tensor, "N D"],
    train_y: Int[Tensor, " N"],
    test_x: Float[Tensor, "M D"],
    test_y: Int[Tensor, " M"],
    *,
    seed: int = 0,
    grid: Sequence[float] = GRID,
) -> LinearResult:
    """Multinomial logistic regression on vectors centred and scaled by the training set; test labels only count what was right.

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
    scaled = Scaling(train_x)
    x = scaled(train_x)
    l2 = _choose(x, y, held_out(y, HELD_OUT, seed), len(names), grid)
    problem = LogisticRegression(x[None], y[None], len(names))
    w = problem.weights(problem.solve(_penalty(l2, x)))
    predicted = [names[logits_of(scaled(part)[None], w)[0, 0].argmax(dim=1)] for part in test_x.split(8192)]
    return LinearResult(top1(torch.cat(predicted), test_y), l2)


def held_out(y: Int[Tensor, " N"], fraction: float, seed: int) -> Tensor:
    """(N,) bool, True for `fraction` of each class, at least one row of it; a class with a single row keeps it for training."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(y), dtype=torch.bool)
    for c in y.unique():
        rows = (y == c).nonzero()[:, 0].cpu()
        count = max(round(fraction * len(rows)), 1) if len(rows) > 1 else 0
        held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held.to(y.device)


def _choose(x: Tensor, y: Tensor, held: Tensor, classes: int, grid: Sequence[float]) -> float:
    """The penalty that does best on the held-out rows; walks from strong to weak, each solution starting the next."""
    if len(grid) == 1 or not held.any():
        return grid[0] if len(grid) == 1 else FALLBACK
    problem = LogisticRegression(x[~held][None], y[~held][None], classes)
    merits, solution = [], None
    for l2 in grid:
        solution = problem.solve(_penalty(l2, x), start=solution)
        scores = logits_of(x[held][None], problem.weights(solution))[0, 0]
        merits.append((top1(scores.argmax(dim=1), y[held]), -float(F.cross_entropy(scores, y[held]))))
    return grid[max(range(len(grid)), key=merits.__getitem__)]


def _penalty(l2: float, x: Tensor) -> Tensor:
    return torch.full((1, 1), l2, dtype=torch.float64, device=x.device)
