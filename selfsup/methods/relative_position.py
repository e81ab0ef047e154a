"""Relative position: Unsupervised Visual Representation Learning by Context Prediction.

Doersch, Gupta and Efros, ICCV 2015. https://arxiv.org/abs/1505.05192

Modality   images
Hidden     where the second patch of a pair lies around the first.
Shown      pairs of neighbours in a grid of patches with gaps between, each moved a little, altered and encoded alone (section 3.1).
Predicted  which of the eight places around the first it is: softmax over the eight.

Axes: B images in the batch, C channels, S side of an image, G patches in a row, P side of a patch, n pairs of an image, N patches.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.batch_norm import statistics_of
from selfsup.models.maps import feature_map, map_values
from selfsup.models.normalize import Normalize
from selfsup.models.patch_grid import mosaic, pieces
from selfsup.views.augment import Look, draw
from selfsup.views.crops import clean
from selfsup.views.geometry import resize_weights
from selfsup.views.sampling import chance, integers, normal
from selfsup.views.tiles import Tiles

Colour = Literal["drop", "projection", "keep"]

PLACES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows down and columns to the right from the first patch to the second, class by class."""

FEWEST = 10
"""Pixels in a row of a patch that is pixelated most: 100 in all."""


class GridOfPatches:
    """A crop of every image, cut into G x G patches with gaps: "patches" (B, C, G P, G P) in [0, 1] or about it, side by side.

    Returns the whole "image" (B, C, S, S) as well.

    Args:
        image_size: S in pixels.
        grid: G.
        patch_size: P in pixels.
        gap: between patches, as a fraction of P.
        jitter: most by which a patch is moved to any side, as a fraction of P.
        smallest_crop: smallest area of the image's crop, as a fraction of it.
        colour: what is done against chromatic aberration.
        pixelated: probability that a patch is resized to fewer pixels, and back.
        mean: of the data, (C,), about which dropped channels lie; None for 0.5.
    """

    def __init__(
        self,
        image_size: int,
        grid: int,
        patch_size: int,
        gap: float,
        jitter: float,
        smallest_crop: float,
        colour: Colour,
        pixelated: float,
        mean: Tensor | None = None,
    ) -> None:
        self.cells = Tiles(grid, patch_size, patch_size + round(gap * patch_size), 2 * round(jitter * patch_size))
        self.image = Look(self.cells.canvas, scale=(smallest_crop, 1.0))
        self.image_size, self.colour, self.pixelated = image_size, colour, pixelated
        self.mean = torch.tensor([0.5]) if mean is None else mean

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop of each image and the place of each patch, then what happens to it."""
        cut = self.cells.cut(draw(batch, self.image, generator), generator)
        patches = cut.flatten(0, 2)
        if self.colour == "projection":
            patches = projected(patches)
        elif self.colour == "drop":
            patches = dropped(patches, generator, self.mean.to(patches.device))
        patches = pixelate(patches, generator, self.pixelated)
        return {"image": clean(batch, self.image_size), "patches": mosaic(patches.unflatten(0, cut.shape[:3]))}


def projected(x: Float[Tensor, "N C P P"]) -> Float[Tensor, "N C P P"]:
    """What is left of red, green and blue without a = (-1, 2, -1), green against magenta: x (I - a^T a / a a^T) of each pixel.

    Raises:
        ValueError: there are not three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(f'colour "projection" needs red, green and blue, got {x.shape[1]} channels; choose "drop" or "keep"')
    along = (2 * x[:, 1] - x[:, 0] - x[:, 2]) / 6  # x a^T / a a^T
    return x - along[:, None] * x.new_tensor([-1.0, 2.0, -1.0])[:, None, None]


def dropped(x: Float[Tensor, "N C P P"], generator: torch.Generator, mean: Float[Tensor, " _"]) -> Float[Tensor, "N C P P"]:
    """One channel of each patch as it is; the others gaussian noise about `mean`, with 1/100 of the deviation of the one that is kept."""
    n, channels = x.shape[:2]
    kept = F.one_hot(integers(n, generator, channels), channels).bool()[:, :, None, None]
    deviation = (x.std(dim=(2, 3), correction=0, keepdim=True) * kept).sum(dim=1, keepdim=True)
    noise = mean.view(-1, 1, 1) + deviation / 100 * normal(n, generator, *x.shape[1:])
    return torch.where(kept, x, noise)


def pixelate(x: Float[Tensor, "N C P P"], generator: torch.Generator, share: float) -> Float[Tensor, "N C P P"]:
    """A share of the patches resized to 10 x 10 pixels or more, and back."""
    n, side = len(x), x.shape[-1]
    if share == 0 or side <= FEWEST:
        return x
    sides = range(FEWEST, side + 1)
    zero = torch.zeros(1, dtype=torch.long, device=x.device)
    there_and_back = [resize_weights(zero, zero + s, s, side) @ resize_weights(zero, zero + side, side, s) for s in sides]
    way = integers(n, generator, len(sides))
    way = torch.where(chance(n, generator, share), way, len(sides) - 1)  # the last is the identity
    matrix = torch.cat(there_and_back)[way, None]
    return matrix @ x @ matrix.transpose(2, 3)


class RelativePosition(Method):
    """The encoder and a layer on its map see each patch alone, and a classifier pairs of them (figure 3, late fusion).

    All patches of the grid are encoded once, and each takes part in up to eight pairs, as in the paper (section 3.1). Every pair of
    neighbours counts, in both orders, and all eight places count alike, though a grid has fewer diagonal neighbours. The paper's batch
    normalisation without scale and shift is in the layers after the encoder.

    A whole image goes through the encoder at once after training, so the encoder's own batch normalisation keeps running statistics of
    whole images, not of patches.

    Careful with JPEGs that are not resized: their blocks of 8 x 8 pixels tell places. All patches have the same blocks if they are a
    multiple of 8 pixels apart and crops are whole: grid=2, patch_size=12, gap=0.334, jitter=0.167, smallest_crop=1 for images of 32 pixels.

    Args:
        encoder: maps patches (N, C, P, P) to (N, D, h, w), pool5 of the paper, which it averages into the vector of a whole image.
        image_size: side of the images, in pixels, which decides P where patch_size does not.
        grid: G, patches in a row, 2 or more.
        patch_size: P in pixels, 0 for what fits into the image, but at least 16; crops are resized to fit. The paper's is 96.
        gap: between neighbours, as a fraction of P, at least twice the jitter; the paper's is 48 of 96 pixels.
        jitter: most by which a patch is moved to any side, as a fraction of P; the paper's is 7 of 96 pixels.
        hidden_size: width of the layer on each patch's map (on its vector, if the encoder has no map), fc6, and of the classifier's hidden
            layers, fc7 and fc8; the paper's is 4096.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; the paper takes the image.
        colour: against chromatic aberration, which tells places in photographs: drop replaces all channels of a patch but one by noise,
            projection removes green against magenta, keep does nothing; the paper has the first two.
        pixelated: probability that a patch is resized to fewer pixels, down to 10 x 10, and back, 0 to 1; the paper: some patches.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)
    pairs: Tensor
    weight: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        grid: int = 3,
        patch_size: int = 0,
        gap: float = 0.5,
        jitter: float = 0.07,
        hidden_size: int = 512,
        smallest_crop: float = 0.5,
        colour: Colour = "drop",
        pixelated: float = 0.0,
    ) -> None:
        super().__init__()
        if colour not in ("drop", "projection", "keep"):
            raise ValueError(f'colour must be "drop", "projection" or "keep", got "{colour}"')
        if not 0 <= pixelated <= 1:
            raise ValueError(f"pixelated is a probability and must be in [0, 1], got {pixelated}")
        if grid < 2 or patch_size < 0 or jitter < 0:
            raise ValueError(f"expected a grid of at least 2, patch_size and jitter of at least 0, got {grid=}, {patch_size=}, {jitter=}")
        self.encoder, self.grid = encoder, grid
        side = patch_size or max(16, int(image_size / (grid + (grid - 1) * gap + 2 * jitter)))
        self.fc6 = nn.Sequential(
            nn.Flatten(),
            nn.Linear(map_values(encoder, side), hidden_size, bias=False),
            nn.BatchNorm1d(hidden_size, affine=False),
            nn.ReLU(inplace=True),
        )
        # A linear layer on two vectors is the sum of one on each, and patches are fewer than pairs.
        self.first, self.second = (nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(2))
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(hidden_size, affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_size, hidden_size, bias=False),
            nn.BatchNorm1d(hidden_size, affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_size, len(PLACES)),
        )
        self.register_buffer("pairs", neighbours(grid), persistent=False)
        _, _, place = self.pairs
        self.register_buffer("weight", 1 / (len(PLACES) * place.bincount()[place]), persistent=False)
        layer = getattr(encoder, "normalize", None)
        mean = layer.mean if isinstance(layer, Normalize) else None
        self.views = GridOfPatches(image_size, grid, side, gap, jitter, smallest_crop, colour, pixelated, mean)

    def loss(self, views: Batch) -> Tensor:
        """Mean cross entropy over images and places, in nats; log 8 by chance."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with "accuracy": the share of places that are recognised, a mean over the eight; 1/8 by chance."""
        with statistics_of(self.encoder, views["image"]):
            z = self.fc6(feature_map(self.encoder, pieces(views["patches"], self.grid).flatten(0, 2)))
        one, other = (layer(z).unflatten(0, (-1, self.grid**2)) for layer in (self.first, self.second))
        first, second, place = self.pairs
        logits = self.classifier((one[:, first] + other[:, second]).flatten(0, 1)).float()
        target = place.repeat(len(one))
        each = F.cross_entropy(logits, target, reduction="none")
        right = (logits.detach().argmax(dim=1) == target).float()
        loss, accuracy = ((x.view(len(one), -1) * self.weight).sum(dim=1).mean() for x in (each, right))
        yield Update(loss, metrics={"accuracy": accuracy})


def neighbours(grid: int) -> Int[Tensor, "3 n"]:
    """Every patch with each of its neighbours: the number of the first, of the second, and of the second's place."""
    r, c = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    place = torch.tensor(PLACES)[:, :, None, None]
    row, column = r + place[:, 0], c + place[:, 1]  # (8, G, G)
    inside = (row >= 0) & (row < grid) & (column >= 0) & (column < grid)
    first = (r * grid + c).expand(len(PLACES), -1, -1)
    number = torch.arange(len(PLACES))[:, None, None].expand_as(first)
    return torch.stack([x[inside] for x in (first, row * grid + column, number)])
