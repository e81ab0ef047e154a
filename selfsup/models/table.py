"""Rows of tables: an encoder that takes missing values, and what a wrong guess of a row costs.

Axes: B rows, D places of a row's vector, K columns. Each category has a block of places (start, stop) with a single 1, whose last place
means "missing"; every other place is a number, NaN where it is missing.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfsup.distributed import sum_over_processes, world_size
from selfsup.method import Encoder
from selfsup.models.heads import mlp
from selfsup.models.normalize import Normalize

Blocks = Sequence[tuple[int, int]]


class Table(Encoder):
    """`MLP` with D more inputs that say which values are missing: (B, D), NaN where missing -> (B, width).

    The weights of these inputs begin at 0, so that a missing value counts as the mean in a column that had none in training.

    Args:
        channels: D, length of the input.
        hidden_size: width of both hidden layers.
        width: length of the output.
        mean, std: of the data, for each of the D places; None for 0 and 1.
    """

    def __init__(
        self,
        *,
        channels: int,
        hidden_size: int = 512,
        width: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.normalize = Normalize(channels, [0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std)
        self.net = mlp(2 * channels, hidden_size, hidden_size, width)
        torch.nn.init.zeros_(self.net[0].weight[:, channels:])  # type: ignore[index]

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B width"]:
        """(B, D) of any range, NaN where missing -> (B, width)."""
        return self.net(torch.cat([self.normalize(x), x.isnan().to(x.dtype)], dim=1))


def columns_of(places: int, blocks: Blocks) -> Int[Tensor, " D"]:
    """Number of the column that each place belongs to, in the order of the vector: 0 to K - 1.

    Raises:
        ValueError: blocks that overlap, are out of order, or reach outside of the vector.
    """
    first = torch.ones(places, dtype=torch.int64)
    end = 0
    for start, stop in blocks:
        if not end <= start < stop <= places:
            raise ValueError(f"blocks must be ascending ranges within 0 to {places}, got {list(map(tuple, blocks))}")
        first[start + 1 : stop] = 0
        end = stop
    return first.cumsum(0) - 1


def known_values(x: Float[Tensor, "B D"], blocks: Blocks) -> Bool[Tensor, "B D"]:
    """One True for every value that is there: at a number's place where it is not NaN, at a block's first place where it is not missing.

    Args:
        x: rows in any units.
        blocks: (start, stop) of every category, ascending.
    """
    known = ~x.isnan()
    for start, stop in blocks:
        known[:, start] = x[:, stop - 1] == 0
        known[:, start + 1 : stop] = False
    return known


def row_error(
    predicted: Float[Tensor, "B D"], target: Float[Tensor, "B D"], known: Bool[Tensor, "B D"], blocks: Blocks
) -> Float[Tensor, "B D"]:
    """What a wrong guess costs: squared errors of numbers, and in each block the parts of one cross entropy in nats, which is their sum.

    Args:
        predicted: numbers, in standard deviations; in the blocks logits.
        target: numbers in standard deviations, in each block a single 1.
        known: what `known_values` says; a value that is missing costs nothing, and `target` may be anything there.
        blocks: (start, stop) of every category, ascending.
    Returns:
        Errors of which `.sum() / known.sum()` is the mean over all known values.
    """
    # Filled before the subtraction: a gradient of 0 through NaN would be NaN.
    error = (predicted - target.masked_fill(~known, 0)).square().masked_fill(~known, 0)
    for start, stop in blocks:
        cost = -target[:, start:stop] * F.log_softmax(predicted[:, start:stop], dim=1)
        error = torch.cat([error[:, :start], cost * known[:, start, None], error[:, stop:]], dim=1)
    return error


def as_mean(error: Float[Tensor, "B D"], known: Bool[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """`row_error` in such units that the mean over all B D places, and over all processes, is that over the known values."""
    share = sum_over_processes(known.double().mean()) / world_size()
    return error / share.clamp(min=1e-12).to(error.dtype)


def filled(predicted: Float[Tensor, "B D"], blocks: Blocks) -> Float[Tensor, "B D"]:
    """Logits of every block -> probabilities, which sum to 1; numbers as they are."""
    x = predicted.clone()
    for start, stop in blocks:
        x[:, start:stop] = predicted[:, start:stop].softmax(dim=1)
    return x
