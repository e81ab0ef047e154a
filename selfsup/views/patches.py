"""What methods on patches hide: random patches (MAE), or blocks of them (I-JEPA). In every mask True means hidden.

Axes: B images, N = grid^2 patches, row by row, M blocks.
"""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from selfsup.method import Batch
from selfsup.views.crops import RandomCrop
from selfsup.views.sampling import permutations, uniform


class RandomPatches:
    """A light random crop and which of its patches are hidden: "image" (B, C, S, S) in [0, 1], "hidden" (B, N); keeps "label" and "index".

    Each image has the same number of hidden patches, every set of that many being equally likely.

    Args:
        image_size: S in pixels.
        grid: patches in a row.
        hidden: number of hidden patches, 0 to N.
        smallest_crop: smallest area of the crop, as a fraction of the image.
    """

    def __init__(self, image_size: int, grid: int, hidden: int, smallest_crop: float) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0))
        self.grid, self.hidden = grid, hidden

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop and the patches of each image."""
        views = self.crop(batch, generator)
        order = permutations(len(views["image"]), generator, self.grid**2)
        return {**views, "hidden": order < self.hidden}


class BlocksOfPatches:
    """A light random crop and blocks of its patches (I-JEPA, section 3 and appendix A.1), with "label" and "index" kept.

    "image" (B, C, S, S) in [0, 1]; "targets" (B, M, N), True for the patches of each target block; "hidden" (B, N), True for the patches
    that the context does not show: those outside of its own large block, and those of the targets.

    As in the authors' code, the sizes of blocks are drawn once for a batch, one for all targets and one for contexts, and the place of each
    block for itself; a context that would show less than one patch in twenty keeps those of its last targets.

    Args:
        image_size: S in pixels.
        grid: patches in a row.
        blocks: M.
        target_scale, context_scale: smallest and largest area of a block, as fractions of the image; context blocks are squares.
        target_ratio: smallest and largest height / width of a target block.
        smallest_crop: smallest area of the crop, as a fraction of the image.
        flip: probability of a mirrored crop.
    """

    def __init__(
        self,
        image_size: int,
        grid: int,
        blocks: int = 4,
        *,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_ratio: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        smallest_crop: float = 0.3,
        flip: float = 0.0,
    ) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0), flip=flip)
        self.grid, self.blocks = grid, blocks
        self.target_scale, self.target_ratio, self.context_scale = target_scale, target_ratio, context_scale
        self.least = math.ceil(grid**2 / 20)  # patches of a context; 10 of 14 x 14, as the authors have it

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop and the blocks of each image."""
        views = self.crop(batch, generator)
        rows = len(views["image"])
        targets = self._place(rows, self.blocks, self._size(self.target_scale, self.target_ratio, generator), generator)
        block = self._place(rows, 1, self._size(self.context_scale, (1.0, 1.0), generator), generator)
        shown = block & ~(targets.cumsum(dim=1) > 0)  # (B, M, N): the context's block without the first target, the first two, ...
        enough = (shown.sum(dim=2) >= self.least).sum(dim=1, keepdim=True)  # how many targets can be taken out
        last = (enough - 1).clamp(min=0)[:, :, None].expand(-1, -1, shown.shape[2])
        return {**views, "hidden": ~shown.gather(1, last)[:, 0], "targets": targets}

    def _size(self, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator) -> tuple[int, int]:
        """Height and width of a block in patches, at least 1 and at most `grid`; the same on every process."""
        u, v = torch.rand(2, generator=generator, device=generator.device).tolist()
        area = self.grid**2 * (scale[0] + u * (scale[1] - scale[0]))
        shape = ratio[0] + v * (ratio[1] - ratio[0])
        height, width = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        return min(max(height, 1), self.grid), min(max(width, 1), self.grid)

    def _place(self, rows: int, blocks: int, size: tuple[int, int], generator: torch.Generator) -> Bool[Tensor, "B M N"]:
        """Blocks of one size, each anywhere in its image with equal probability; True inside."""
        line = torch.arange(self.grid, device=generator.device)
        inside = []
        for length in size:  # rows, then columns
            places = self.grid - length + 1
            start = uniform(rows, generator, 0.0, float(places), blocks, 1).long().clamp(max=places - 1)
            inside.append((line >= start) & (line < start + length))  # (B, blocks, grid)
        return (inside[0][:, :, :, None] & inside[1][:, :, None, :]).flatten(2)
