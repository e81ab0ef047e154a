"""One optimiser a player, and the learning rate as a function of progress."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfsup.method import Encoder, Method, Recipe

Kind = TypeVar("Kind", bound=type[Optimizer])


def _uncompiled(kind: Kind) -> Kind:
    """The optimiser without the wrappers that import torch's compiler, which nobody asked for, and which takes 2 s at every start."""
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return cast("Kind", type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])}))


AdamW, SGD = _uncompiled(torch.optim.AdamW), _uncompiled(torch.optim.SGD)


@_uncompiled
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


def make_optimizers(method: Method, recipe: Recipe, rates: Mapping[nn.Parameter, float] | None = None) -> dict[str, Optimizer]:
    """An optimiser for each player, none where there are no players; parameters with `requires_grad=False` are in none.

    Args:
        rates: what a parameter's learning rate is multiplied by, 1 for those that are not in it.

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
        optimizers[player] = _optimizer([p for _, p in named], recipe, rates or {})
    return optimizers


def _optimizer(params: list[nn.Parameter], recipe: Recipe, rates: Mapping[nn.Parameter, float]) -> Optimizer:
    groups: list[dict] = []
    for rate in dict.fromkeys(rates.get(p, 1.0) for p in params):
        same = [p for p in params if rates.get(p, 1.0) == rate]
        # Vectors are biases, normalisation and tokens: decay pulls matrices and kernels only, and LARS adapts those only.
        groups.append({"params": [p for p in same if p.ndim > 1], "weight_decay": recipe.weight_decay, "rate": rate})
        groups.append({"params": [p for p in same if p.ndim <= 1], "weight_decay": 0.0, "rate": rate, "adapt": False})
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, recipe.beta2), fused=True)
    if recipe.optimizer == "sgd":
        sgd = SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
        if recipe.momentum:  # zeros from the start: the fused kernel fails on a weight whose first gradient comes later than others'
            for p in params:
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    if recipe.optimizer == "lars":
        return LARS(groups, lr=recipe.lr, momentum=recipe.momentum)
    raise ValueError(f'no optimizer "{recipe.optimizer}"; there are adamw, sgd and lars')


def scaled_lr(recipe: Recipe, batch_size: int) -> float:
    """The recipe's rate at another batch size: linear for sgd and lars (1706.02677), square root for adamw (2205.10287), else the same."""
    if recipe.optimizer == "own":
        return recipe.lr
    ratio = batch_size / recipe.batch_size
    return recipe.lr * (math.sqrt(ratio) if recipe.optimizer == "adamw" else ratio)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Rate at a progress from 0 to 1: linear warm-up, then cosine (1608.03983) or linear to zero, or constant."""
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.lr
    after = min(1.0, (progress - recipe.warmup) / max(1e-12, 1 - recipe.warmup))
    if recipe.schedule == "linear":
        return recipe.lr * (1 - after)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * after))


def layerwise_rates(network: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """For fine-tuning: decay^depth for each parameter; depth is 1 in the last block and grows towards the input (1801.06146, 2003.10555).

    Blocks are found from the network's children, in the order in which they were defined, which must be that of the data. Where a single
    child holds all parameters, its children are looked at instead; a Sequential, a ModuleList or an encoder stands for its own children. A
    child with a matrix or kernel begins a block, one with vectors only (normalisation, say) belongs to the block before; parameters of the
    network itself (tokens, positions) belong to the first.

    Args:
        network: an encoder; `small` has 4 blocks, a ResNet-18 9, a ViT 13.
        decay: above 0, 1 for the same rate everywhere; 2111.06377 has 0.75 for ViTs.

    Raises:
        ValueError: another decay.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"the decay of learning rates with depth must be above 0 and at most 1, got {decay}")
    top = _children(network)
    while len(top) == 1 and (inner := _children(top[0])):
        top = inner
    blocks: list[list[nn.Parameter]] = [[]]
    for child in _spread(top):
        own = list(child.parameters())
        if blocks[-1] and any(p.ndim > 1 for p in own):
            blocks.append([])
        blocks[-1] += own
    depths = {p: len(blocks) - i for i, block in enumerate(blocks) for p in block}
    return {p: decay ** depths.get(p, len(blocks)) for p in network.parameters()}


def _children(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if next(child.parameters(), None) is not None]


def _spread(modules: list[nn.Module]) -> list[nn.Module]:
    found = []
    for module in modules:
        found += _spread(_children(module)) if isinstance(module, nn.Sequential | nn.ModuleList | Encoder) else [module]
    return found


def set_learning_rate(optimizers: dict[str, Optimizer], lr: float) -> None:
    """The same rate for every player and group, but for what the group's own is multiplied by."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = lr * group["rate"]


def clip_gradients(params: list[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients down to a norm of at most `largest`; returns the norm before, infinite or NaN where a gradient is."""
    gradients = [p.grad for p in params if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if largest < math.inf:
        torch.nn.utils.clip_grads_with_norm_(params, largest, norm)
    return norm
