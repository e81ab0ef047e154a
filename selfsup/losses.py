"""What losses share and no single paper owns; a formula that a paper brought lives in that paper's file."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute a loss in float32 (or float64) also where the networks run in bfloat16.

    Similarities divided by a temperature go into an exponential: bfloat16's eight bits would be the largest error of the whole step.
    """

    @functools.wraps(loss)
    def computed(*args: Any, **settings: Any) -> Tensor:
        device = next(a.device.type for a in args if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*(_wide(a) for a in args), **settings)

    return computed


def _wide(a: Any) -> Any:
    return a.float() if isinstance(a, Tensor) and a.dtype in (torch.bfloat16, torch.float16) else a
