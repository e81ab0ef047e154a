"""Random numbers for views: drawn for the batch of all processes, cut to the rows of this one.

Two processes with batch B then see exactly what one process with batch 2B sees, because row i of the whole batch gets the same numbers
wherever it is handled. Every process must therefore hold the same number of rows and a generator with the same seed.

Each function returns a tensor on the generator's device whose first axis is `rows`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfsup.distributed import rank, world_size


def _mine(drawn: Tensor, rows: int) -> Tensor:
    return drawn[rank() * rows : (rank() + 1) * rows]


def uniform(rows: int, generator: torch.Generator, low: float, high: float, *shape: int) -> Float[Tensor, "rows ..."]:
    """(rows, *shape) float32 numbers, uniform in [low, high); `low` everywhere where both are equal."""
    drawn = torch.rand(rows * world_size(), *shape, generator=generator, device=generator.device)
    return _mine(drawn, rows) * (high - low) + low


def normal(rows: int, generator: torch.Generator, *shape: int) -> Float[Tensor, "rows ..."]:
    """(rows, *shape) float32 numbers of mean 0 and standard deviation 1."""
    return _mine(torch.randn(rows * world_size(), *shape, generator=generator, device=generator.device), rows)


def chance(rows: int, generator: torch.Generator, p: float) -> Bool[Tensor, " rows"]:
    """(rows,) booleans, each True with probability p in [0, 1]: always at 1, never at 0."""
    return uniform(rows, generator, 0.0, 1.0) < p


def integers(rows: int, generator: torch.Generator, high: int) -> Int[Tensor, " rows"]:
    """(rows,) int64 numbers, uniform in 0, 1, ..., high - 1."""
    return _mine(torch.randint(high, (rows * world_size(),), generator=generator, device=generator.device), rows)


def permutations(rows: int, generator: torch.Generator, n: int) -> Int[Tensor, "rows {n}"]:
    """(rows, n) int64: each row its own order of 0, ..., n - 1, all n! equally likely."""
    return uniform(rows, generator, 0.0, 1.0, n).argsort(dim=1)
