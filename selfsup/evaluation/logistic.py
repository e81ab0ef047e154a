"""Multinomial logistic regression by L-BFGS, many small problems at once.

Liu and Nocedal, Mathematical Programming 1989, algorithm 2.1, with a backtracking line search (the problem is convex).

Axes: S sets of rows, N rows in each, D width, J problems on the same rows (folds, strengths of regularisation), C classes.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Weights = Float[Tensor, "S J D+1 C"]  # the last row along D + 1 is the bias

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]  # (P, K) points -> (P,) values, (P, K) gradients

LOGITS = 2**22  # numbers; rows go through in blocks that stay in the processor's cache


def fit_logistic(
    x: Float[Tensor, "S N D"],
    y: Int[Tensor, "S N"],
    classes: int,
    l2: Float[Tensor, "S J"],
    *,
    rows: Float[Tensor, "S J N"] | None = None,
    start: Weights | None = None,
    tolerance: float = 1e-5,
    iterations: int = 300,
) -> Weights:
    """Minimise mean cross entropy (nats) + l2/2 |W|^2 in each of S x J problems; the bias is not penalised. Deterministic.

    Args:
        y: classes, 0 to C - 1.
        l2: strength of the penalty, above 0; scikit-learn's C is 1 / (N l2).
        rows: weight of every row in every problem, 0 leaves it out; all 1 if None.
        start: weights to start from, zeros if None.
        tolerance: stop when no entry of the gradient is larger.
        iterations: at most so many; weakly penalised problems end here, close to their optimum.
    Returns:
        Weights in float64.
    """
    sets, n, width = x.shape
    problems = l2.shape[1]
    share = torch.ones(sets, problems, n, device=x.device) if rows is None else rows
    share = (share / share.sum(dim=2, keepdim=True)).to(x.dtype)
    if n < width and start is None:
        # The optimum lies in the span of the rows: solve in an orthonormal basis of it, which has N instead of D directions.
        basis, small = torch.linalg.qr(x.transpose(1, 2))  # (S, D, N), (S, N, N)
        w = fit_logistic(small.transpose(1, 2).contiguous(), y, classes, l2, rows=rows, tolerance=tolerance, iterations=iterations)
        return torch.cat([basis.double().unsqueeze(1) @ w[:, :, :-1], w[:, :, -1:]], dim=2)
    shape = (sets, problems, width + 1, classes)

    def objective(flat: Tensor) -> tuple[Tensor, Tensor]:
        w = flat.view(shape)
        value, gradient = _cross_entropy(x, y, share, w.to(x.dtype))
        penalised = w[:, :, :-1]
        value = value + 0.5 * l2 * penalised.square().sum(dim=(2, 3))
        gradient[:, :, :-1] += l2[:, :, None, None] * penalised
        return value.flatten(), gradient.reshape(flat.shape)

    begin = torch.zeros(shape, dtype=torch.float64, device=x.device) if start is None else start.double()
    return _lbfgs(objective, begin.reshape(sets * problems, -1), tolerance, iterations).view(shape)


def logits_of(x: Float[Tensor, "S N D"], weights: Weights) -> Float[Tensor, "S J N C"]:
    """Scores of every row in every problem; the largest is the predicted class."""
    w = weights.to(x.dtype)
    return x.unsqueeze(1) @ w[:, :, :-1] + w[:, :, -1:]


def _cross_entropy(x: Tensor, y: Tensor, share: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy (S, J) and its gradient (S, J, D + 1, C), both summed in float64."""
    sets, problems, _, classes = w.shape
    columns = w.transpose(1, 2).reshape(sets, -1, problems * classes)  # one product serves all J problems
    value = torch.zeros(sets, problems, dtype=torch.float64, device=x.device)
    gradient = torch.zeros(columns.shape, dtype=torch.float64, device=x.device)
    step = max(LOGITS // (sets * max(problems * classes, x.shape[2])), 1)
    for first in range(0, x.shape[1], step):
        part, target = x[:, first : first + step], y[:, first : first + step]
        weight = share[:, :, first : first + step].transpose(1, 2).unsqueeze(3)  # (S, n, J, 1)
        scores = torch.baddbmm(columns[:, -1:], part, columns[:, :-1]).view(*part.shape[:2], problems, classes)
        picked = target[:, :, None, None].expand(-1, -1, problems, 1)
        log_p = scores.log_softmax(dim=3)
        value -= (log_p.gather(3, picked) * weight).squeeze(3).sum(dim=1, dtype=torch.float64)
        error = log_p.exp_()
        error.scatter_add_(3, picked, torch.full_like(picked, -1, dtype=error.dtype))
        error = (error * weight).flatten(2)
        gradient[:, :-1] += torch.bmm(part.transpose(1, 2), error)
        gradient[:, -1] += error.sum(dim=1)
    return value, gradient.view(sets, -1, problems, classes).transpose(1, 2).contiguous()


def _lbfgs(objective: Objective, w: Tensor, tolerance: float, iterations: int, memory: int = 10) -> Tensor:
    """P independent minimisations in step; each has its own step size, and stands still once its gradient is small."""
    value, gradient = objective(w)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    stuck = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(iterations):
        active = (gradient.abs().amax(dim=1) > tolerance) & ~stuck
        if not active.any():
            break
        direction = -_inverse_hessian(gradient, pairs)
        slope = (direction * gradient).sum(dim=1)
        step = torch.ones_like(value) if pairs else 1 / gradient.norm(dim=1).clamp(min=1.0)
        step = step * active
        best, best_value, best_gradient = w, value, gradient
        pending = active
        for _ in range(20):
            moved = w + step[:, None] * direction
            new_value, new_gradient = objective(moved)
            # The last term is the noise of float32 sums: without it the search gives up just before the optimum.
            enough = new_value <= value + 1e-4 * step * slope + 1e-7 * value.abs()
            taken = (pending & enough)[:, None]
            best, best_gradient = torch.where(taken, moved, best), torch.where(taken, new_gradient, best_gradient)
            best_value = torch.where(taken[:, 0], new_value, best_value)
            pending = pending & ~enough
            if not pending.any():
                break
            step = torch.where(pending, step / 2, step)
        stuck = stuck | pending
        s, t = best - w, best_gradient - gradient
        curvature = (s * t).sum(dim=1)
        # A problem that stood still, or whose curvature drowns in rounding, adds nothing to its own memory: rho = 0.
        rho = torch.where(curvature > 1e-12 * t.square().sum(dim=1).clamp(min=1e-300), 1 / curvature, 0.0)
        pairs = [*pairs[1 - memory :], (s, t, rho)]
        w, value, gradient = best, best_value, best_gradient
    return w


def _inverse_hessian(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion: approximate inverse Hessian times gradient, for every problem."""
    q, weights = gradient.clone(), []
    for s, t, rho in reversed(pairs):
        a = rho * (s * q).sum(dim=1)
        weights.append(a)
        q -= a[:, None] * t
    scale = torch.ones_like(q[:, 0])
    for s, t, rho in pairs:  # of each problem, its latest useful pair
        scale = torch.where(rho > 0, (s * t).sum(dim=1) / t.square().sum(dim=1).clamp(min=1e-300), scale)
    q *= scale[:, None]
    for (s, t, rho), a in zip(pairs, reversed(weights), strict=True):
        b = rho * (t * q).sum(dim=1)
        q += (a - b)[:, None] * s
    return q


def check_l2(l2: float) -> None:
    """Raise ValueError unless the penalty makes the problem well posed."""
    if not (l2 > 0 and math.isfinite(l2)):
        raise ValueError(f"l2 must be positive and finite, got {l2}: without it separable classes have no optimum")
