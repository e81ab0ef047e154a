"""One process or many, one code path: each function is an identity on one process.

Only this file and the engine name `torch.distributed`. Losses that compare views call `gather`; the engine calls `average_gradients` after
every backward pass. Together they give the gradient of the mean loss over all processes, exactly.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process counts as the only one: for what one does while the others wait for it, such as watching a loss."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def is_parallel() -> bool:
    """Whether this process trains together with others."""
    return not _alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_parallel() else 0


def world_size() -> int:
    """How many processes train together, 1 when alone."""
    return dist.get_world_size() if is_parallel() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        # Every process's loss depends on my rows: the gradient is the sum over all of them. A copy, as others may hold what arrives.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def gather(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, (B, ...) -> (world_size B, ...), with gradient; B must be the same everywhere."""
    return _Gather.apply(x) if is_parallel() else x


def sum_over_processes(x: Tensor) -> Tensor:
    """Elementwise sum over all processes, with gradient."""
    return _Sum.apply(x) if is_parallel() else x


@torch.no_grad()
def average(x: Tensor) -> Tensor:
    """Mean over all processes, without gradient; for what is logged."""
    if is_parallel():
        x = x.clone()
        dist.all_reduce(x)
        x /= world_size()
    return x


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, in one coalesced exchange for each dtype.

    A parameter that no process has a gradient of has none afterwards either, so that its optimiser leaves it alone, as on one process.
    """
    if not is_parallel():
        return
    by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
    for p in parameters:
        if p.requires_grad:
            by_dtype.setdefault(p.dtype, []).append(p)
    for members in by_dtype.values():
        # Unused here but perhaps not elsewhere: every process must send the same shapes, and then whether it has a gradient of each.
        parts = [torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in members]
        flat = torch.cat([*parts, parts[0].new_tensor([float(p.grad is not None) for p in members])])
        dist.all_reduce(flat)
        flat /= world_size()
        *means, used = flat.split([*(p.numel() for p in members), len(members)])
        for p, mean, some in zip(members, means, used, strict=True):
            if p.grad is None:
                if not some:  # read only here: a GPU need not be waited for where all have gradients
                    continue
                p.grad = torch.empty_like(p)
            p.grad.copy_(mean.view_as(p))


def agree(stop: int, seconds: float) -> tuple[int, float]:
    """One decision for all processes: a stop signal that reached any of them (0 for none), and rank 0's clock."""
    if not is_parallel():
        return stop, seconds
    both = torch.tensor([float(stop), seconds if rank() == 0 else 0.0], dtype=torch.float64)
    dist.all_reduce(both, op=dist.ReduceOp.MAX)
    return int(both[0]), float(both[1])


def broadcast_text(text: str) -> str:
    """Rank 0's text on every process."""
    if not is_parallel():
        return text
    data = text.encode()
    length = torch.tensor([len(data)])
    dist.broadcast(length, 0)
    letters = torch.tensor(list(data), dtype=torch.uint8) if rank() == 0 else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(letters, 0)
    return bytes(letters.tolist()).decode()
