"""A grid of tiles of an image, each moved a little in its cell and with gaps between, so that no line goes on from one tile to the next.

Axes: B images, C channels, S side of the image, G tiles in a row, P side of a tile, all in pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.views.sampling import uniform


@dataclass(frozen=True)
class Tiles:
    """Where tiles lie: tile (r, c) begins at r x pitch and c x pitch, each moved by 0 to `play` pixels.

    Args:
        grid: G, 2 or more.
        side: P.
        pitch: from one tile to the next; the gap between them is pitch - side, more or less `play`.
        play: pixels by which a tile may be moved, all places being equally likely.

    Attributes:
        canvas: S, side of the image that they just fit into.
    """

    grid: int
    side: int
    pitch: int
    play: int

    def __post_init__(self) -> None:
        if self.grid < 2 or self.side < 1:
            raise ValueError(f"tiles need a grid of at least 2 and a side of at least 1 pixel, got {self.grid} and {self.side}")
        if self.play < 0 or self.pitch < self.side + self.play:
            raise ValueError(f"tiles of {self.side} pixels that move by 0 to {self.play} overlap at a pitch of {self.pitch} pixels")

    @property
    def canvas(self) -> int:
        return (self.grid - 1) * self.pitch + self.side + self.play

    def cut(
        self, images: Float[Tensor, "B C S S"], generator: torch.Generator, channel_shift: int = 0
    ) -> Float[Tensor, "B {self.grid} {self.grid} C {self.side} {self.side}"]:
        """The tiles, row by row; each channel of a tile is moved by another -channel_shift to channel_shift pixels, where there is room."""
        b, c, height, width = images.shape
        if height != self.canvas or width != self.canvas:
            raise ValueError(f"expected images of {self.canvas} x {self.canvas} pixels for these tiles, got {height} x {width}")
        cells = self.grid**2
        corner = torch.arange(cells, device=images.device)
        corner = torch.stack([corner // self.grid, corner % self.grid])[None, None] * self.pitch  # (1, 1, 2, G G): top and left
        start = corner + _integers(b, generator, self.play + 1, 1, 2, cells)
        if channel_shift and c > 1:
            moved = start + _integers(b, generator, 2 * channel_shift + 1, c, 2, cells) - channel_shift
            start = moved.clamp(0, self.canvas - self.side)
        line = start[..., None] + torch.arange(self.side, device=images.device)  # (B, 1 or C, 2, G G, P)
        pixel = line[:, :, 0, :, :, None] * width + line[:, :, 1, :, None, :]
        found = images.flatten(2).gather(2, pixel.flatten(2).expand(b, c, -1))
        return found.view(b, c, self.grid, self.grid, self.side, self.side).permute(0, 2, 3, 1, 4, 5)


def _integers(rows: int, generator: torch.Generator, high: int, *shape: int) -> Tensor:
    return uniform(rows, generator, 0.0, float(high), *shape).long().clamp(max=high - 1)
