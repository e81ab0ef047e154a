"""An encoder of patches: the same network on each of grid x grid overlapping patches of an image, as CPC has it.

Axes: B images, C channels, S side of an image, G patches in a row (grid), P side of a patch, N patches.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder

Norm = Literal["batch", "layer", "none"]


class PatchGrid(Encoder):
    """The vector of an image is the mean of its patches': (B, C, S, S) in [0, 1] -> (B, encoder.width).

    Args:
        encoder: sees one patch (N, C, P, P) at a time; its batch normalisation is replaced within it where `norm` says so.
        grid: G; neighbours share half of their pixels, so P = 2 S / (G + 1), rounded down to an even number.
        norm: "batch" leaves the encoder as it is, and patches then know of each other through the statistics; "layer" normalises each patch
            over its channels and positions (1607.06450); "none" leaves a shift of each channel.

    Attributes:
        spec: the encoder's, with "patches": {"grid", "norm"}.
    """

    def __init__(self, encoder: Encoder, *, grid: int = 7, norm: Norm = "batch") -> None:
        super().__init__()
        if grid < 1:
            raise ValueError(f"grid must be at least 1 patch in a row, got {grid}")
        if norm not in ("batch", "layer", "none"):
            raise ValueError(f'norm must be "batch", "layer" or "none", got {norm!r}')
        if norm != "batch":
            _replace_batch_norm(encoder, norm)
        self.encoder, self.grid, self.norm = encoder, grid, norm
        self.width = encoder.width
        self.spec = {**vars(encoder).get("spec", {}), "patches": {"grid": grid, "norm": norm}}

    def each(self, patches: Float[Tensor, "B G G C P P"]) -> Float[Tensor, "B G G width"]:
        """The vector of every patch."""
        return self.encoder(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])

    def forward(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B width"]:
        """(B, C, S, S) in [0, 1] -> (B, width), of any size."""
        return self.each(cut(x, self.grid)).mean(dim=(1, 2))


def patch_grid(encoder: Encoder, *, grid: int = 7, norm: Norm = "batch") -> PatchGrid:
    """The encoder on patches; one that is already is returned as it is.

    Raises:
        ValueError: it is already, on another grid or with another normalisation.
    """
    if not isinstance(encoder, PatchGrid):
        return PatchGrid(encoder, grid=grid, norm=norm)
    if (encoder.grid, encoder.norm) != (grid, norm):
        got = f"grid={encoder.grid}, norm={encoder.norm!r}"
        raise ValueError(f"expected an encoder of patches with grid={grid}, norm={norm!r}, or one of whole images, got one with {got}")
    return encoder


def patch_side(image_size: int, grid: int) -> int:
    """P in pixels.

    Raises:
        ValueError: the image is too small for so many patches.
    """
    half = image_size // (grid + 1)
    if half < 1:
        raise ValueError(f"a grid of {grid} x {grid} patches needs images of at least {grid + 1} pixels, got {image_size}")
    return 2 * half


def cut(x: Float[Tensor, "B C S S"], grid: int) -> Float[Tensor, "B {grid} {grid} C P P"]:
    """Patches that overlap by half, row by row; pixels that no patch reaches are the outermost, shared out between both sides."""
    side = x.shape[-1]
    patch = patch_side(side, grid)
    start = (side - patch // 2 * (grid + 1)) // 2
    used = slice(start, start + patch // 2 * (grid + 1))
    return x[:, :, used, used].unfold(2, patch, patch // 2).unfold(3, patch, patch // 2).permute(0, 2, 3, 1, 4, 5)


def mosaic(patches: Float[Tensor, "B G G C P P"]) -> Float[Tensor, "B C M M"]:
    """The patches side by side, as one picture (B, C, G P, G P)."""
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def pieces(picture: Float[Tensor, "B C M M"], grid: int) -> Float[Tensor, "B {grid} {grid} C P P"]:
    """The patches of a `mosaic`."""
    side = picture.shape[-1] // grid
    return picture.unflatten(3, (grid, side)).unflatten(2, (grid, side)).permute(0, 2, 4, 1, 3, 5)


class _Shift(nn.Module):
    """Adds a number to each channel, as convolutions before a normalisation have no bias of their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * (x.ndim - 2))


def _replace_batch_norm(module: nn.Module, norm: Norm) -> None:
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer = nn.GroupNorm(1, child.num_features) if norm == "layer" else _Shift(child.num_features)
            setattr(module, name, layer)
        else:
            _replace_batch_norm(child, norm)
