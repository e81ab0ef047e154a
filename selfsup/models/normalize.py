"""The first layer of every encoder: inputs in [0, 1] to inputs of mean 0 and deviation 1 in each channel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel; a saved encoder carries the statistics of its data in these two buffers.

    In vectors, a missing value (NaN) becomes 0, the mean of its column.

    Args:
        channels: C, the length of axis 1.
        mean: one number a channel, in units of the input; None for 0.5, the middle of [0, 1].
        std: one positive number a channel, in units of the input; None for 0.25, close to that of photographs.

    Raises:
        ValueError: no channels, a wrong number of statistics, or a statistic that is not finite, or a deviation that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | Tensor | None = None, std: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.register_buffer("mean", _statistic("mean", mean, 0.5, channels))
        self.register_buffer("std", _statistic("std", std, 0.25, channels))
        if not bool((self.std > 0).all()):
            worst = int(self.std.argmin())
            got = f"{float(self.std[worst])} in channel {worst}"
            raise ValueError(f"std must be positive in every channel, got {got}; use 1 for a constant channel")

    def forward(self, x: Float[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:
        """(B, C, ...) float -> the same shape, standardised.

        Raises:
            ValueError: x has another number of channels.
        """
        channels = len(self.mean)
        if x.shape[1] != channels:
            raise ValueError(f"expected (B, {channels}, ...) with {channels} channels on axis 1, got {tuple(x.shape)}")
        shape = (1, channels) + (1,) * (x.ndim - 2)
        x = (x - self.mean.view(shape)) / self.std.view(shape)
        return x.masked_fill(x.isnan(), 0) if x.ndim == 2 else x


def _statistic(name: str, values: Sequence[float] | Tensor | None, default: float, channels: int) -> Tensor:
    """One float32 number a channel, checked."""
    if values is None:
        return torch.full((channels,), default)
    tensor = torch.as_tensor(values, dtype=torch.float32).detach().clone()
    if tensor.shape != (channels,):
        raise ValueError(f"{name} must have one number for each of the {channels} channels, got shape {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {tensor.tolist()}")
    return tensor
