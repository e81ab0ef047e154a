"""The only training step: whose turn it is comes from the method's updates, everything else is the same for all papers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfsup.distributed import average, average_gradients
from selfsup.engine.optim import clip_gradients
from selfsup.method import Batch, Method, Update


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of convolutions so that their maps are laid out like that too: up to 1.5 times as fast on a CPU; not on mps."""
    for p in network.parameters():
        if p.ndim == 4 and p.device.type != "mps":
            p.data = p.data.contiguous(memory_format=torch.channels_last)


class NotFiniteError(ArithmeticError):
    """A loss or gradient was NaN or infinite; no weight has been touched by it."""


def train_step(
    method: Method,
    micro_batches: Sequence[Batch],
    optimizers: Mapping[str, Optimizer],
    *,
    autocast: Any = None,
    clip: float = float("inf"),
) -> dict[str, Tensor]:
    """One optimiser step of every player: gradients of the mean loss over the micro-batches and over all processes.

    The updates of the micro-batches go in step: update k of each is computed and back-propagated in turn, its player is stepped, and only
    then do the next lines of `updates` run.

    Args:
        method: what is trained.
        micro_batches: views, equal parts of this process's batch; one for no accumulation.
        optimizers: by player, as `make_optimizers` gives them.
        autocast: context manager around the forward passes, none for float32.
        clip: largest gradient norm of a player.

    Returns:
        "loss" (of the first player), "loss/PLAYER" where there are several, "gradient_norm/PLAYER" and the method's metrics; 0-dim tensors.

    Raises:
        NotFiniteError: a gradient norm is NaN or infinite; that player has not been stepped. Or a method that makes its steps itself has
            such a loss.
    """
    forward = autocast if autocast is not None else torch.autocast("cpu", enabled=False)
    pending = [method.updates(views) for views in micro_batches]
    sums: dict[str, Tensor] = {}
    several = len(optimizers) > 1
    while (first := _next(pending[0], forward)) is not None:
        player, params = first.player, [] if first.player is None else _parameters(optimizers, first.player)
        name = f"loss/{player}" if several else "loss"
        for updates in pending:
            update = first if updates is pending[0] else _next(updates, forward)
            if update is None or update.player != player:
                raise ValueError(_unlike(player))
            if player is not None:
                update.loss.div(len(pending)).backward(inputs=params)
            _add(sums, name, update.loss.detach() / len(pending))
            for key, value in update.metrics.items():
                _add(sums, key, value.detach().float() / len(pending))
        if player is None:  # the method has made the step
            if not bool(torch.isfinite(sums[name])):
                raise NotFiniteError(f"the loss is {float(sums[name])}")
            continue
        average_gradients(params)
        norm = clip_gradients(params, clip)
        _add(sums, f"gradient_norm/{player}" if several else "gradient_norm", norm)
        if not bool(torch.isfinite(norm)):
            raise NotFiniteError(f'gradient norm of player "{player}" is {float(norm)}, its loss {float(sums[name]):.6g}')
        optimizers[player].step()
        optimizers[player].zero_grad(set_to_none=True)
    for updates in pending[1:]:  # what stands after their last line that yields is run too
        more = _next(updates, forward)
        if more is not None:
            raise ValueError(_unlike(more.player))
    if several:
        sums["loss"] = sums[f"loss/{next(iter(optimizers))}"]
    means = average(torch.stack([value.float() for value in sums.values()]))
    return dict(zip(sums, means.unbind(), strict=True))


def _unlike(player: str | None) -> str:
    return f'micro-batches must yield the same players in the same order; one yields "{player}" where another does not'


def _next(updates: Iterator[Update], forward: Any) -> Update | None:
    with forward:
        return next(updates, None)


def _parameters(optimizers: Mapping[str, Optimizer], player: str) -> list[nn.Parameter]:
    if player not in optimizers:
        raise ValueError(f'an update names the player "{player}"; `players` has {", ".join(optimizers)}')
    # A method may freeze a parameter for a while: it then gets no gradient, and its optimiser leaves it alone, decay and all.
    return [p for group in optimizers[player].param_groups for p in group["params"] if p.requires_grad]


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


def chunk_views(views: Batch, parts: int) -> list[Batch]:
    """Equal parts of a batch of views, for gradient accumulation.

    Raises:
        ValueError: the batch does not divide.
    """
    rows = {key: len(value) for key, value in views.items()}
    if parts == 1:
        return [views]
    if any(n % parts for n in rows.values()):
        raise ValueError(f"a batch of {rows} cannot be split into {parts} equal parts; choose --accumulate so that it divides --batch-size")
    pieces = {key: value.chunk(parts) for key, value in views.items()}
    return [{key: pieces[key][i] for key in views} for i in range(parts)]
