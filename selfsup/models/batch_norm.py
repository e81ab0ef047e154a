"""Batch normalisation over the batches of all processes, on any device (torch's own works on GPUs only), and what its statistics are of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.distributed import is_parallel, sum_over_processes


class _Synchronised:
    """Batch normalisation whose mean and variance are those of every process's rows together (1502.03167 over the whole batch)."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not (self.training and is_parallel()):
            return super().forward(x)  # type: ignore[misc]
        dims = [d for d in range(x.ndim) if d != 1]
        wide = x.float()
        here = torch.cat([wide.sum(dims), wide.square().sum(dims), wide.new_tensor([x.numel() / x.shape[1]])])
        total = sum_over_processes(here)
        n = total[-1]
        mean, square = total[:-1].div(n).chunk(2)
        var = (square - mean.square()).clamp(min=0)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * (n / (n - 1)), share)
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = torch.rsqrt(var + self.eps) * (self.weight if self.affine else 1.0)
        shift = (self.bias if self.affine else 0.0) - mean * scale
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """For (B, C) and (B, C, L)."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """For (B, C, H, W)."""


_SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: SynchronisedBatchNorm1d, nn.BatchNorm2d: SynchronisedBatchNorm2d}


def synchronise(module: nn.Module) -> None:
    """Make every batch normalisation in `module` use the statistics of all processes; weights and buffers stay the same objects."""
    for child in module.modules():
        kind = _SYNCHRONISED.get(type(child))
        if kind is not None:
            child.__class__ = kind  # type: ignore[assignment]


@contextmanager
def statistics_of(network: nn.Module, x: Tensor) -> Iterator[None]:
    """For a network that learns from something else than it is to see afterwards, `x`.

    In training, batches within are normalised by themselves as ever, but leave the running statistics as they are; those follow `x`.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
    if norms and network.training:
        with torch.no_grad():
            network(x)
