"""CPC: Representation Learning with Contrastive Predictive Coding, for images.

Oord, Li and Vinyals, 2018. https://arxiv.org/abs/1807.03748
Version 2: Data-Efficient Image Recognition with Contrastive Predictive Coding, Henaff et al., ICML 2020. https://arxiv.org/abs/1905.09272

Modality   images
Hidden     the rows of patches that come later: below the context, and in version 2 also above, left and right of it.
Shown      the patches of the rows before, each encoded alone and altered alone.
Predicted  which of the batch's patches lies k rows further: scores of W_k context with the patches' encodings (equation 4).

Axes: B images in the batch, C channels, S side of an image, G patches in a row, P side of a patch, D width of an encoding, N patches.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.distributed import world_size
from selfsup.losses import info_nce, mutual_information
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.patch_grid import PatchGrid, cut, mosaic, patch_grid, patch_side, pieces
from selfsup.views.augment import Look, draw
from selfsup.views.sampling import chance, integers
from selfsup.views.warps import warp

SCALE = 0.1
"""Of version 2's scores (its pseudo-code: emb_scale)."""

SHEAR, ELASTIC = 0.3, 0.05
"""Of patches in version 2, see `warp`; the paper names no sizes: AutoAugment's largest shear, and a twentieth of the side."""


class AlteredPatches:
    """A crop of every image, cut into G x G overlapping patches, each altered alone: "patches" (B, C, G P, G P) in [0, 1], side by side.

    Neighbours share half of their pixels, and seams and colours that go on would give them away; the altering is against that. Version 1
    blackens the border outside of a random 60/64 of each patch. Version 2 crops, mirrors and recolours each patch, drops colours, and
    shears and deforms some.

    Args:
        image_size: S in pixels.
        grid: G.
        version: 1 or 2.
        smallest_crop: smallest area of the image's crop, as a fraction of it.
        gray: probability of no colour, of the image in version 1, of each patch in version 2.
        colour_strength: multiplies the strengths of version 2's colour changes, no unit.
        colour_drop: probability that a patch of version 2 keeps one channel only.
        warped: probability that a patch of version 2 is sheared, and that it is deformed.
    """

    def __init__(
        self,
        image_size: int,
        grid: int,
        version: int,
        smallest_crop: float,
        gray: float,
        colour_strength: float,
        colour_drop: float,
        warped: float,
    ) -> None:
        self.grid, self.version, self.colour_drop, self.warped = grid, version, colour_drop, warped
        self.image = Look(image_size, scale=(smallest_crop, 1.0), gray=gray if version == 1 else 0.0)
        b, c, s, h = (colour_strength * x for x in (0.4, 0.4, 0.4, 0.1))
        self.patch = Look(patch_side(image_size, grid), scale=(0.5, 1.0), jitter=0.8, colours=(b, c, s, h), gray=gray)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop of each image, then what happens to each patch."""
        patches = cut(draw(batch, self.image, generator), self.grid)
        flat = patches.flatten(0, 2)
        if self.version == 1:
            flat = flat * inner(len(flat), flat.shape[-1], generator)
        else:
            flat = draw({"image": flat.mul(255).round_().byte()}, self.patch, generator)
            flat = flat * kept_channels(len(flat), flat.shape[1], generator, self.colour_drop)
            flat = warp(flat, generator, self.warped, SHEAR, ELASTIC)
        return {"patches": mosaic(flat.unflatten(0, patches.shape[:3]))}


def inner(rows: int, side: int, generator: torch.Generator) -> Float[Tensor, "rows 1 {side} {side}"]:
    """1 within a random square of 60/64 of the side, rounded down, and 0 around it."""
    square = max(1, side * 60 // 64)
    place = torch.arange(side, device=generator.device)
    within = []
    for _ in range(2):
        start = integers(rows, generator, side - square + 1)[:, None]
        within.append((place >= start) & (place < start + square))
    return (within[0][:, None, :, None] & within[1][:, None, None, :]).float()


def kept_channels(rows: int, channels: int, generator: torch.Generator, drop: float) -> Float[Tensor, "rows {channels} 1 1"]:
    """1 for the channels that a patch keeps: one of them with probability `drop`, else all."""
    one = F.one_hot(integers(rows, generator, channels), channels).bool()
    every = ~chance(rows, generator, drop)
    return (one | every[:, None]).float()[:, :, None, None]


class CPC(Method):
    """Encoder of patches, context network over the rows so far, and one linear prediction for each number of rows ahead.

    Args:
        encoder: g_enc, maps patches (N, C, P, P) to (N, D); the vector of an image is the mean over its patches.
        image_size: S, height and width of a crop, in pixels.
        version: 1 has no normalisation in g_enc and predicts downwards; 2 has layer normalisation (batch normalisation would tell patches
            of each other), a deeper context network, predictions of a smaller size in four directions, and recoloured patches.
        grid: G, patches in a row and in a column, overlapping by half; the papers' is 7.
        nearest: smallest k, number of rows ahead that is predicted, 1 or more; neighbours share pixels, so the papers leave 1 out.
        farthest: largest k, below G; each k has its own W_k. Version 1 predicts up to five rows.
        directions: 1 predicts downwards, 4 also upwards, left and right, by context networks of their own; None for 1 in version 1, 4 in 2.
        context_size: width of the context network's hidden layers; the paper's is 256, beside encodings of 4,096.
        target_size: length of what version 2 predicts, a linear map of the encoding; the paper's is 64.
        smallest_crop: area of the smallest crop, as a fraction of the image; version 1 takes 256 of 300 pixels, 0.73.
        gray: probability of no colour, of an image in version 1 (where the paper's is 1.0), of each patch in version 2.
        colour_strength: multiplies the strengths of version 2's colour changes of each patch, no unit.
        colour_drop: probability that a patch keeps only one of its channels in version 2, 0 to 1.
        warped: probability that a patch of version 2 is sheared by up to 0.3, and that it is deformed, 0 to 1; the paper's is 0.2 each.
    """

    # Version 1: Adam, rate 2e-4, batches of 512.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=32, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        version: Literal[1, 2] = 2,
        grid: int = 7,
        nearest: int = 2,
        farthest: int = 4,
        directions: Literal[1, 4] | None = None,
        context_size: int = 64,
        target_size: int = 64,
        smallest_crop: float = 0.5,
        gray: float = 0.2,
        colour_strength: float = 1.0,
        colour_drop: float = 0.2,
        warped: float = 0.2,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version}")
        if not 1 <= nearest <= farthest < grid:
            raise ValueError(f"expected 1 <= nearest <= farthest < grid rows ahead, got {nearest=}, {farthest=}, {grid=}")
        if not (0 <= colour_drop <= 1 and 0 <= warped <= 1):
            raise ValueError(f"colour_drop and warped are probabilities and must be in [0, 1], got {colour_drop=}, {warped=}")
        self.encoder = patch_grid(encoder, grid=grid, norm="none" if version == 1 else "layer")
        size = encoder.width if version == 1 else target_size
        self.target = nn.Identity() if version == 1 else nn.Linear(encoder.width, size)
        self.scale = 1.0 if version == 1 else SCALE
        self.ahead = range(nearest, farthest + 1)
        blocks = 2 if version == 1 else 5
        self.directions = nn.ModuleList(
            Direction(encoder.width, context_size, blocks, size, self.ahead) for _ in range(directions or (1 if version == 1 else 4))
        )
        self.views = AlteredPatches(image_size, grid, version, smallest_crop, gray, colour_strength, colour_drop, warped)

    def loss(self, views: Batch) -> Tensor:
        """Equation 4, a mean over patches, steps and directions, in nats.

        Candidates are the batch's patches of the rows that are predicted; the pseudo-code of version 2 takes those of all rows, and a sum.
        """
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with "information/k", the lower bound of section 2.3 for k rows ahead, in nats; a mean over directions."""
        assert isinstance(self.encoder, PatchGrid)
        z = self.encoder.each(pieces(views["patches"], self.encoder.grid))
        losses, information = [], dict.fromkeys(self.ahead, torch.zeros((), device=z.device))
        for turns, direction in enumerate(self.directions):
            turned = z.rot90(turns, dims=(1, 2))  # so that it goes on downwards
            targets = self.target(turned)
            for k, predicted in zip(self.ahead, direction(turned), strict=True):
                losses.append(info_nce(predicted.flatten(0, 2), targets[:, k:].flatten(0, 2), 1 / self.scale))
                bound = mutual_information(losses[-1], predicted[..., 0].numel() * world_size())
                information[k] = information[k] + bound / len(self.directions)
        metrics = {f"information/{k}": bound for k, bound in information.items()}
        yield Update(torch.stack(losses).mean(), metrics=metrics)

    def embed(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B D"]:
        return self.encoder(x)  # z, not c


class Direction(nn.Module):
    """What predicts in one direction: a context network and a matrix W_k for each k of `ahead`.

    Args:
        width, hidden, blocks: of the context network.
        size: length of a prediction.
        ahead: numbers of rows.
    """

    def __init__(self, width: int, hidden: int, blocks: int, size: int, ahead: range) -> None:
        super().__init__()
        self.ahead = ahead
        self.context = Context(width, hidden, blocks)
        self.w = nn.ModuleList(nn.Linear(width, size, bias=False) for _ in ahead)

    def forward(self, z: Float[Tensor, "B G G D"]) -> list[Tensor]:
        """For each k the predictions (B, G - k, G, size) of what is k rows further, that is of rows k to G - 1."""
        c = self.context(z)
        return [w(c[:, :-k]) for k, w in zip(self.ahead, self.w, strict=True)]


class Context(nn.Module):
    """g_ar, masked convolutions: row i of what comes out knows the rows up to i of what goes in, and nothing of those below.

    Both versions have the blocks of version 2's pseudo-code, where version 1 has a recurrent network in the style of PixelCNN: down to
    `hidden`, one patch to each side, one row up, and back; added to what came in.

    Args:
        width: D.
        hidden: channels inside of a block.
        blocks: each looks one row further up and one patch further to both sides; version 2 has five, version 1 does not say.
    """

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # a row above
                nn.Conv2d(hidden, hidden, (2, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, width, 1),
            )
            for _ in range(blocks)
        )

    def forward(self, z: Float[Tensor, "B G G D"]) -> Float[Tensor, "B G G D"]:
        x = z.permute(0, 3, 1, 2)
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x).permute(0, 2, 3, 1)
