"""One optimiser a player, and the learning rate as a function of progress."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from selfsup.method import Method, Recipe


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling with momentum, You, Gitman and Ginsburg 2017, https://arxiv.org/abs/1708.03888, algorithm 1.

    The local rate of a weight is `trust * |w| / (|grad| + weight_decay |w|)`. Groups with `adapt=False` (biases, normalisation) take plain
    momentum steps without decay, as large-batch recipes have it.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Algorithm 1 once, from the gradients that are there."""
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                step = w.grad
                if group["adapt"]:
                    decayed = step.add(w, alpha=group["weight_decay"])
                    norm_w, norm_g = w.norm(), step.norm()
                    local = group["trust"] * norm_w / (norm_g + group["weight_decay"] * norm_w)
                    # A weight or gradient of zero has no direction to scale: the authors' code then takes the plain rate.
                    step = decayed * torch.where((norm_w > 0) & (norm_g > 0), local, torch.ones_like(local))
                state = self.state[w]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(w)
                state["momentum"].mul_(group["momentum"]).add_(step, alpha=group["lr"])
                w.sub_(state["momentum"])


def make_optimizers(method: Method, recipe: Recipe) -> dict[str, Optimizer]:
    """An optimiser for each player; parameters with `requires_grad=False` are in none.

    Raises:
        ValueError: a player has nothing to train, or two players share a parameter.
    """
    owner: dict[int, str] = {}
    optimizers: dict[str, Optimizer] = {}
    for player, module in method.players().items():
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError(f'player "{player}" of {type(method).__name__} has no parameter that requires a gradient')
        for name, p in named:
            if id(p) in owner:
                raise ValueError(f'parameter "{name}" belongs to the players "{owner[id(p)]}" and "{player}"; give it to one of them')
            owner[id(p)] = player
        optimizers[player] = _optimizer([p for _, p in named], recipe)
    return optimizers


def _optimizer(params: list[nn.Parameter], recipe: Recipe) -> Optimizer:
    # Vectors are biases, normalisation and tokens: decay pulls matrices and kernels only.
    groups: list[dict] = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, recipe.beta2), fused=True)
    if recipe.optimizer == "sgd":
        sgd = SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
        if recipe.momentum:  # zeros from the start: the fused kernel fails on a weight whose first gradient comes later than others'
            for p in params:
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    if recipe.optimizer == "lars":
        groups[1]["adapt"] = False
        return LARS(groups, lr=recipe.lr, momentum=recipe.momentum)
    raise ValueError(f'no optimizer "{recipe.optimizer}"; there are adamw, sgd and lars')


def scaled_lr(recipe: Recipe, batch_size: int) -> float:
    """The recipe's rate at another batch size: linear for sgd and lars (1706.02677), square root for adamw (2205.10287)."""
    ratio = batch_size / recipe.batch_size
    return recipe.lr * (math.sqrt(ratio) if recipe.optimizer == "adamw" else ratio)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Rate at a progress from 0 to 1: linear warm-up, then cosine to zero (1608.03983) or constant."""
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.lr
    after = (progress - recipe.warmup) / max(1e-12, 1 - recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))


def set_learning_rate(optimizers: dict[str, Optimizer], lr: float) -> None:
    """The same rate for every player and group."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = lr


def clip_gradients(params: list[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients down to a norm of at most `largest`; returns the norm before, infinite or NaN where a gradient is."""
    gradients = [p.grad for p in params if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if largest < math.inf:
        torch.nn.utils.clip_grads_with_norm_(params, largest, norm)
    return norm
