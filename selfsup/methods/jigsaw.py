"""Jigsaw: Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles.

Noroozi and Favaro, ECCV 2016. https://arxiv.org/abs/1603.09246

Modality   images
Hidden     in which order the tiles of an image are put, nine in the paper.
Shown      the tiles, each normalised and encoded alone, in the order of one of N permutations (section 3.2).
Predicted  which permutation it is: softmax over the N.

Axes: B images in the batch, C channels, S side of an image, G tiles in a row, P side of a tile, K puzzles of each image, N permutations,
F features of a tile.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.batch_norm import statistics_of
from selfsup.models.heads import mlp
from selfsup.models.maps import feature_map, map_values
from selfsup.models.normalize import Normalize
from selfsup.models.patch_grid import mosaic, pieces
from selfsup.views import sampling
from selfsup.views.augment import Look, draw
from selfsup.views.crops import clean
from selfsup.views.tiles import Tiles


class Puzzles:
    """The tiles of a crop of every image, and the puzzles to make of them.

    Returns "image" (B, C, S, S), whole; "tiles" (B, C, G P, G P), side by side as they are in the image; and "puzzles" (B, K) int64, the
    numbers of K different permutations. Each channel of each tile has the mean and the deviation of the data if they are normalised, so
    values are not confined to [0, 1] then.

    Args:
        image_size: S in pixels.
        grid: G.
        tile_size: P in pixels; as in the paper each lies anywhere in a cell of 75/64 of that.
        permutations: N.
        puzzles: K.
        smallest_crop: smallest area of the image's crop, as a fraction of it.
        gray: probability that an image loses its colours.
        channel_shift: most pixels by which a channel of a tile is moved.
        normalise: tiles.
        mean, std: of the data, (C,) each; None for 0.5 and 0.25.
    """

    def __init__(
        self,
        image_size: int,
        grid: int,
        tile_size: int,
        permutations: int,
        puzzles: int,
        smallest_crop: float,
        gray: float,
        channel_shift: int,
        normalise: bool,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        play = round(tile_size * 11 / 64)
        self.cells = Tiles(grid, tile_size, tile_size + play, play)
        self.image = Look(self.cells.canvas, scale=(smallest_crop, 1.0), gray=gray)
        self.image_size, self.permutations, self.puzzles = image_size, permutations, puzzles
        self.channel_shift, self.normalise = channel_shift, normalise
        self.mean = torch.tensor([0.5]) if mean is None else mean
        self.std = torch.tensor([0.25]) if std is None else std

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop of each image, the place of each tile and channel, and the puzzles."""
        tiles = self.cells.cut(draw(batch, self.image, generator), generator, self.channel_shift)
        if self.normalise:
            mean, std = (x.to(tiles.device).view(-1, 1, 1) for x in (self.mean, self.std))
            tiles = standardised(tiles) * std + mean
        puzzles = sampling.permutations(len(tiles), generator, self.permutations)[:, : self.puzzles]
        return {"image": clean(batch, self.image_size), "tiles": mosaic(tiles), "puzzles": puzzles}


def standardised(tiles: Float[Tensor, "*tiles C P P"]) -> Float[Tensor, "*tiles C P P"]:
    """Each channel of each tile less its mean, over its deviation; one without contrast is 0."""
    var, mean = torch.var_mean(tiles, dim=(-2, -1), correction=0, keepdim=True)
    return (tiles - mean) / (var + 1e-5).sqrt()


@functools.cache
def permutation_set(n: int, tiles: int = 9) -> Int[Tensor, "{n} {tiles}"]:
    """n orders of the tiles that are far from each other in Hamming distance, as algorithm 1 finds them, always the same ones.

    From one order on, the next is the one that is farthest from those chosen before. The paper goes by the mean distance and starts
    anywhere; here the nearest of those before decides first and the mean among equals, and the first is no change. That reaches the
    paper's mean, 8.08 places of 9 for 100 orders and 8.01 for 1,000, while the nearest two differ in 6 and 5 places, instead of 2.

    Raises:
        ValueError: n is not in 2 to tiles!, 24 of four and 362,880 of nine.
    """
    if not 2 <= n <= math.factorial(tiles):
        raise ValueError(f"{tiles} tiles have 2 to {math.factorial(tiles)} permutations, got permutations={n}")
    every = np.array(list(itertools.permutations(range(tiles))), dtype=np.uint8).T.copy()  # (9, 9!)
    nearest = np.zeros(every.shape[1], dtype=np.uint8)  # most places in common with one that is chosen
    total = np.zeros(every.shape[1], dtype=np.int32)  # places in common with all of them
    chosen = [0]
    while len(chosen) < n:
        newest = every[:, chosen[-1]]
        same = np.zeros_like(nearest)
        for place, tile in zip(every, newest, strict=True):
            same += place == tile
        total += same
        np.maximum(nearest, same, out=nearest)  # all for those that are chosen
        best = np.flatnonzero(nearest == nearest.min())
        chosen.append(int(best[total[best].argmin()]))
    return torch.from_numpy(every[:, chosen].T.astype(np.int64))


class Jigsaw(Method):
    """Context-free network: the encoder and a layer on its map see one tile each, and only a classifier sees all (section 3.1).

    A whole image goes through the encoder at once after training, as in the paper, whose network has no batch normalisation; so the
    encoder's keeps running statistics of whole images, not of tiles.

    Careful with JPEGs that are not resized: their blocks of 8 x 8 pixels tell places. All tiles have the same blocks if their cells are a
    multiple of 8 pixels wide and crops are whole. For images of 32 pixels: grid=2, permutations=24, tile_size=14, smallest_crop=1, and
    gray=0, channel_shift=0, normalise=False, as small tiles have little to tell without their colours.

    Args:
        encoder: maps tiles (G G B, C, P, P) to (G G B, D, h, w), which it averages into the vector of a whole image.
        image_size: side of the images, in pixels, which decides P where tile_size does not.
        grid: G, tiles in a row, 2 or 3; the paper's is 3.
        permutations: N, size of the set, 2 to 24 for grid 2 and to 362,880 for grid 3; the paper compares 10 to 1,000 and takes 1,000.
        puzzles: K, permutations of each image in a step, at most N; tiles are encoded once for all of them; the paper shows 1.
        tile_size: P in pixels, 0 for what the paper's 64 pixels of 225 are of the image, but at least 16; crops are resized to fit.
        feature_size: F, width of the layer on each tile's map (on its vector, if the encoder has no map), fc6; the paper's is 512.
        hidden_size: width of the layer on all tiles, fc7; the paper's is 4096.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; the paper takes 225 of 256 pixels, 0.77.
        gray: probability that an image loses its colours, 0 to 1; the paper's is 0.3.
        channel_shift: most pixels by which each channel of a tile is moved, against chromatic aberration; the paper's is 2 of 64.
        normalise: each channel of each tile gets the same mean and deviation, as in the paper.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)
    permutations: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        grid: int = 3,
        permutations: int = 100,
        puzzles: int = 4,
        tile_size: int = 0,
        feature_size: int = 128,
        hidden_size: int = 512,
        smallest_crop: float = 0.5,
        gray: float = 0.3,
        channel_shift: int = 1,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= puzzles <= permutations:
            raise ValueError(f"expected 1 to {permutations} puzzles of an image, as many as there are permutations, got {puzzles}")
        if grid not in (2, 3):
            raise ValueError(f"expected a grid of 2 or 3 tiles in a row, whose permutations can be counted, got {grid}")
        if tile_size < 0 or channel_shift < 0 or feature_size < 1:
            raise ValueError(
                f"expected tile_size and channel_shift of at least 0 and a positive feature_size, got {tile_size=}, {channel_shift=}, "
                f"{feature_size=}"
            )
        self.encoder, self.grid = encoder, grid
        side = tile_size or max(16, round(image_size * 64 / 225))
        self.tile = nn.Sequential(nn.Flatten(), nn.Linear(map_values(encoder, side), feature_size), nn.ReLU(inplace=True))
        self.classifier = mlp(grid**2 * feature_size, hidden_size, permutations)
        self.register_buffer("permutations", permutation_set(permutations, grid**2).clone())
        layer = getattr(encoder, "normalize", None)
        given = (layer.mean, layer.std) if isinstance(layer, Normalize) else (None, None)
        self.views = Puzzles(image_size, grid, side, permutations, puzzles, smallest_crop, gray, channel_shift, normalise, *given)

    def loss(self, views: Batch) -> Tensor:
        """Mean cross entropy over images and puzzles, in nats; log N by chance."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with "accuracy": the share of puzzles that are solved, 1/N by chance."""
        with statistics_of(self.encoder, views["image"]):
            each = feature_map(self.encoder, pieces(views["tiles"], self.grid).flatten(0, 2))
        features = self.tile(each).unflatten(0, (-1, self.grid**2))  # (B, G G, F)
        # The network knows of a tile's place only here, so that ordering its features is ordering tiles.
        order = self.permutations[views["puzzles"]]  # (B, K, G G)
        image = torch.arange(len(order), device=order.device)[:, None, None]
        logits = self.classifier(features[image, order].flatten(2).flatten(0, 1)).float()
        target = views["puzzles"].flatten()
        accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
        yield Update(F.cross_entropy(logits, target), metrics={"accuracy": accuracy})
