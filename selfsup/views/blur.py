"""Gaussian blur of a whole batch, each image with its own sigma, as in torchvision: a sampled kernel and reflected borders."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 65_536
"""Pixels that are blurred together on CPU, so that what a few passes read and write stays in the second-level cache."""


def kernel_size(side: int) -> int:
    """Pixels of the kernel at `side` pixels: a tenth of the side (SimCLR, appendix A), made odd, at least 3."""
    return max(3, int(0.1 * side) // 2 * 2 + 1)


def gaussian_blur(planes: Float[Tensor, "C B S S"], sigma: Float[Tensor, " B"], kernel: int) -> Float[Tensor, "C B S S"]:
    """Blur image i with `kernel` x `kernel` samples of a gaussian of sigma[i] pixels.

    Raises:
        ValueError: `kernel` is even, or so large that a reflected border would have to be reflected again.
    """
    side, radius = planes.shape[-1], kernel // 2
    if kernel % 2 == 0 or radius >= side:
        raise ValueError(f"the blur's kernel must be odd and at most {2 * side - 1} for images of {side} pixels, got {kernel}")
    if planes.device.type != "cpu":
        return _by_matrices(planes, _half_kernel(sigma, radius))
    # Beyond 4 sigma lies 1/60 of a step of 1/255.
    radius = min(radius, math.ceil(4 * float(sigma.max())))
    weights = _half_kernel(sigma, radius).repeat(len(planes), 1)  # (C B, radius + 1)
    lines = planes.reshape(-1, side, side)
    out = torch.empty_like(lines)
    for part, w, target in zip(*(x.split(max(1, BLOCK // side**2)) for x in (lines, weights, out)), strict=True):
        _by_taps(part, w, target)
    return out.view_as(planes)


def _half_kernel(sigma: Tensor, radius: int) -> Float[Tensor, "B {radius+1}"]:
    """Weights at distance 0, 1, ..., radius; those of the whole kernel sum to 1."""
    distance = torch.arange(radius + 1, device=sigma.device)
    half = (-0.5 * (distance / sigma[:, None]) ** 2).exp()
    return half / (2 * half.sum(dim=1, keepdim=True) - half[:, :1])


def _reflected(side: int, radius: int, device: torch.device) -> Int[Tensor, " {side+2*radius}"]:
    """Which of `side` pixels stands at places -radius, ..., side - 1 + radius; the border itself is not repeated."""
    place = torch.arange(-radius, side + radius, device=device).abs()
    return torch.where(place >= side, 2 * (side - 1) - place, place)


def _by_matrices(planes: Tensor, half: Tensor) -> Tensor:
    """One band matrix for each image, from the left and from the right: two large products are what a GPU does best."""
    side, radius = planes.shape[-1], half.shape[1] - 1
    kernel = torch.cat([half.flip(1), half[:, 1:]], dim=1)  # (B, 2 radius + 1)
    source = _reflected(side, radius, planes.device).unfold(0, 2 * radius + 1, 1)  # (S, 2 radius + 1)
    matrix = planes.new_zeros(len(half), side, side)
    matrix.scatter_add_(2, source.expand(len(half), -1, -1), kernel[:, None].expand(-1, side, -1))
    with torch.autocast(planes.device.type, enabled=False):  # bfloat16 has steps of 1/256 below 1
        return torch.stack([matrix @ plane @ matrix.transpose(1, 2) for plane in planes])


def _by_taps(x: Tensor, half: Tensor, out: Tensor) -> None:
    """Sum of shifted copies, first of rows and then of columns; x and out (N, S, S), half (N, radius + 1)."""
    n, side, _ = x.shape
    radius = half.shape[1] - 1
    weights = half[:, :, None, None].unbind(dim=1)  # radius + 1 times (N, 1, 1)
    padded = x.index_select(1, _reflected(side, radius, x.device))
    rows = padded[:, radius : radius + side] * weights[0]
    for d in range(1, radius + 1):
        rows.addcmul_(padded[:, radius - d : radius - d + side] + padded[:, radius + d : radius + d + side], weights[d])
    # Columns are shifted in memory order, over the ends of lines, so that every pass is one long run; what it mixes up there lies in the
    # margin that is cut off at the end.
    line = side + 2 * radius
    padded = x.new_empty(n, side, line)
    padded[:, :, radius : radius + side] = rows
    padded[:, :, :radius] = rows[:, :, 1 : radius + 1].flip(2)
    padded[:, :, radius + side :] = rows[:, :, side - 1 - radius : side - 1].flip(2)
    flat, length = padded.view(n, 1, side * line), side * line - 2 * radius
    mixed = x.new_empty(n, side * line)
    columns = torch.mul(flat[:, :, radius : radius + length], weights[0], out=mixed[:, None, :length])
    for d in range(1, radius + 1):
        columns.addcmul_(flat[:, :, radius - d : radius - d + length] + flat[:, :, radius + d : radius + d + length], weights[d])
    out.copy_(mixed.view(n, side, line)[:, :, :side])
