"""A slowly moving copy of a network: the momentum encoder of MoCo, the target of BYOL, the teacher of DINO."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def frozen_copy(network: N) -> N:
    """The same network, which no optimiser will take; its batch statistics become its own."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow = momentum * slow + (1 - momentum) * fast, parameter by parameter; buffers stay as they are.

    Args:
        slow, fast: networks of one shape; both may be parts of larger ones.
        momentum: share of `slow` that stays, 0 to 1.
    """
    theirs: list[Tensor] = list(fast.parameters())
    mine: list[Tensor] = list(slow.parameters())
    if len(theirs) != len(mine):
        raise ValueError(f"a teacher has the parameters of its student: expected {len(theirs)} of them, got {len(mine)}")
    torch._foreach_lerp_(mine, theirs, 1 - momentum)
