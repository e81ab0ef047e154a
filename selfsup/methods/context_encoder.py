"""Context encoder: Context Encoders, Feature Learning by Inpainting.

Pathak, Krahenbuhl, Donahue, Darrell and Efros, CVPR 2016. https://arxiv.org/abs/1604.07379

Modality   images
Hidden     a region of the image: the centre, random blocks, or blobs of any shape; up to a quarter of it.
Shown      the image with that region filled with the mean colour.
Predicted  the region's pixels, by squared error and by a discriminator that sees regions only, true and predicted.

Axes: B images, C channels, S side of an image, P side of what is predicted, D planes of the encoder's map, h and w its sides.
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models import input_channels
from selfsup.models.dcgan import Discriminator
from selfsup.models.decoders import growth, smallest_map
from selfsup.models.maps import feature_map, map_shape
from selfsup.models.normalize import Normalize
from selfsup.views.crops import RandomCrop
from selfsup.views.regions import central, random_blocks, random_regions

Mask = Literal["centre", "random_blocks", "random_regions"]


class WithoutRegion:
    """A light random crop, "image" (B, C, S, S) in [0, 1], what is hidden of it, "hidden" (B, 1, S, S), and what is "shown" (B, C, S, S).

    Args:
        image_size: S in pixels.
        mask: which region.
        blocks: how many rectangles of "random_blocks".
        fill: C values that stand where pixels are hidden.
        smallest_crop: smallest area of the crop, as a fraction of the image.
    """

    def __init__(self, image_size: int, mask: Mask, blocks: int, fill: Float[Tensor, " C"], smallest_crop: float) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0))
        self.image_size, self.mask, self.blocks, self.fill = image_size, mask, blocks, fill

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop and the region of each image."""
        image = self.crop(batch, generator)["image"]
        hidden = self.hide(len(image), generator)
        return {"image": image, "hidden": hidden, "shown": without(image, hidden, self.fill)}

    def hide(self, rows: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
        """What of each image is hidden."""
        if self.mask == "centre":
            return central(rows, self.image_size, hidden_side(self.image_size), generator.device)
        if self.mask == "random_blocks":
            return random_blocks(rows, generator, self.image_size, self.blocks)
        return random_regions(rows, generator, self.image_size)


class ContextEncoder(Method):
    """Encoder, decoder, and a discriminator D against which they play (figures 2 and 9).

    With mask "centre" the decoder predicts the central S / 2 x S / 2 pixels, of which a border is shown, as in the authors' code; with
    other masks the whole image, of which the hidden pixels count. The encoder's map goes to the decoder through the channel-wise fully
    connected layer of section 3.1; an encoder without a map hands over its vector, which is the bottleneck of the paper's network for
    the centre.

    Args:
        encoder: maps (B, C, S, S) to (B, encoder.width).
        image_size: S, side of an image, in pixels, 8 or more, 16 or more with mask "centre"; the paper's is 128 for filling the centre.
        mask: "centre", "random_blocks", or "random_regions" of any shape; the paper has all, and learns features with the last.
        blocks: how many rectangles "random_blocks" hides, together at most a quarter of the image.
        adversarial_weight: lambda_adv of equation 3, 0 to 1, the squared error having the rest; 0 for no discriminator. The paper's is
            0.001.
        overlap_weight: of the squared error in the border that is shown of the centre, where 1 is that of hidden pixels, at least 0; the
            paper's is 10.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1.
    """

    # The authors' code: Adam, beta_1 0.5, batches of 64, rate 2e-4 for the discriminator and ten times that for the other two networks.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2, momentum=0.5)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 128,
        mask: Mask = "random_blocks",
        blocks: int = 4,
        adversarial_weight: float = 0.001,
        overlap_weight: float = 10.0,
        smallest_crop: float = 0.5,
    ) -> None:
        super().__init__()
        if mask not in ("centre", "random_blocks", "random_regions"):
            raise ValueError(f'mask must be "centre", "random_blocks" or "random_regions", got "{mask}"')
        if not 0 <= adversarial_weight <= 1 or overlap_weight < 0:
            raise ValueError(
                f"adversarial_weight must be between 0 and 1 and overlap_weight at least 0, got {adversarial_weight=}, {overlap_weight=}"
            )
        if mask == "centre" and image_size < 16:
            raise ValueError(f'mask="centre" needs images of at least 16 pixels, got image_size={image_size}; choose --mask random_blocks')
        self.encoder, self.mask, self.image_size = encoder, mask, image_size
        self.predicted_side = image_size // 2 if mask == "centre" else image_size
        channels = input_channels(encoder)
        maps = map_shape(encoder, image_size)
        first = smallest_map(self.predicted_side)
        bottleneck = across(maps, first) if maps else nn.Sequential(nn.Linear(encoder.width, math.prod(first)), nn.Unflatten(1, first))
        self.decoder = nn.Sequential(*bottleneck, *growth(self.predicted_side, channels))
        if adversarial_weight:
            trunk = Discriminator(channels=channels, image_size=self.predicted_side)
            head = nn.Linear(trunk.width, 1)
            nn.init.normal_(head.weight, 0.0, 0.02)
            nn.init.zeros_(head.bias)
            self.discriminator = nn.Sequential(trunk, head)
        self.adversarial_weight, self.overlap_weight = adversarial_weight, overlap_weight
        self.views = WithoutRegion(image_size, mask, blocks, self.fill, smallest_crop)

    @property
    def fill(self) -> Float[Tensor, " C"]:
        """The mean colour, which is 0 once the encoder has standardised it."""
        layer = getattr(self.encoder, "normalize", None)
        return layer.mean if isinstance(layer, Normalize) else torch.full((input_channels(self.encoder),), 0.5)

    def players(self) -> dict[str, nn.Module]:
        """The context encoder, and D where there is one."""
        players: dict[str, nn.Module] = {"generator": nn.ModuleList([self.encoder, self.decoder])}
        return players | ({"discriminator": self.discriminator} if self.adversarial_weight else {})

    def updates(self, views: Batch) -> Iterator[Update]:
        """D's loss, then, once D has been stepped, the joint loss of equation 3."""
        predicted = self._predicted(views["shown"])
        true, hidden = self._region(views["image"]), self._region(views["hidden"])
        reconstruction = reconstruction_loss(predicted, true, self._weight(hidden))
        metrics = {"reconstruction": reconstruction.detach()}
        if not self.adversarial_weight:
            yield Update(reconstruction, "generator", metrics)
            return
        real, made = self._judged(true, hidden), self._judged(predicted, hidden)
        d_real, d_made = self.discriminator(real), self.discriminator(made.detach())
        yield Update(discriminator_loss(d_real, d_made), "discriminator", metrics)

        adversarial = generator_loss(self.discriminator(made))
        joint = (1 - self.adversarial_weight) * reconstruction + self.adversarial_weight * adversarial
        yield Update(joint, "generator", {"adversarial": adversarial.detach()})

    def _predicted(self, shown: Float[Tensor, "B C S S"]) -> Float[Tensor, "B C P P"]:
        return self.decoder(feature_map(self.encoder, shown)).float().tanh() * 0.5 + 0.5

    def _region(self, x: Tensor) -> Tensor:
        """The part of S x S pixels that is predicted."""
        start = (self.image_size - self.predicted_side) // 2
        part = slice(start, start + self.predicted_side)
        return x[:, :, part, part]

    def _weight(self, hidden: Bool[Tensor, "B 1 P P"]) -> Float[Tensor, "B 1 P P"]:
        return torch.where(hidden, 1.0, self.overlap_weight if self.mask == "centre" else 0.0)

    def _judged(self, x: Float[Tensor, "B C P P"], hidden: Bool[Tensor, "B 1 P P"]) -> Float[Tensor, "B C P P"]:
        """What D sees: the region, and nothing of what is around it, or it would look for the seam (section 3.2)."""
        return x if self.mask == "centre" else without(x, ~hidden, self.fill)

    @torch.no_grad()
    def inpaint(self, x: Float[Tensor, "B C S S"], hidden: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B C S S"]:
        """Images with the hidden pixels filled; after training on the centre, hidden pixels must lie there.

        Raises:
            ValueError: another size than the trained one, or pixels that the training never hid.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"expected images of {self.image_size} x {self.image_size} pixels, as trained, got {tuple(x.shape)}; resize them"
            )
        unseen = hidden
        if self.mask == "centre":
            side = hidden_side(self.image_size)
            unseen = central(len(x), self.image_size, side, x.device)
            if bool((hidden & ~unseen).any()):
                raise ValueError(
                    f"this run fills the central {side} x {side} pixels of {self.image_size} x {self.image_size}, but others are hidden; "
                    "train with mask=random_blocks to fill any"
                )
        filled = torch.empty_like(x).copy_(x)
        self._region(filled).copy_(self._predicted(without(x, unseen, self.fill)))
        return torch.where(hidden, filled, x)


def hidden_side(image_size: int) -> int:
    """Side of the hidden centre: S / 2 less a border on both sides that is shown and predicted, 4 of 128 pixels as in the authors' code."""
    return image_size // 2 - 2 * max(1, round(image_size / 32))


def without(x: Float[Tensor, "B C S S"], hidden: Bool[Tensor, "B 1 S S"], fill: Float[Tensor, " C"]) -> Float[Tensor, "B C S S"]:
    """(1 - M) * x, with the mean colour where pixels are hidden."""
    return torch.where(hidden, fill.to(x.device)[:, None, None], x)


def across(maps: tuple[int, int, int], first: tuple[int, int, int]) -> nn.Sequential:
    """Section 3.1: from the encoder's map (B, D, h, w) to the first of the decoder; places learn of each other, then planes."""
    planes, h, w = maps
    layers = [nn.Flatten(2), ChannelwiseLinear(planes, h * w, first[1] * first[2]), nn.ReLU(inplace=True), nn.Unflatten(2, first[1:])]
    return nn.Sequential(*layers, nn.Conv2d(planes, first[0], 1, bias=False))


class ChannelwiseLinear(nn.Module):
    """Section 3.1: each plane of a map has a fully connected layer of its own, so that places learn of each other; planes do not.

    Args:
        planes: D.
        inputs, outputs: places before and after; the paper has as many.
    """

    def __init__(self, planes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(planes, inputs, outputs).uniform_(-1, 1) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(planes, 1, outputs))

    def forward(self, x: Float[Tensor, "B D inputs"]) -> Float[Tensor, "B D outputs"]:
        return torch.baddbmm(self.bias.to(x.dtype), x.transpose(0, 1), self.weight.to(x.dtype)).transpose(0, 1)


@full_precision
def reconstruction_loss(
    predicted: Float[Tensor, "B C P P"], true: Float[Tensor, "B C P P"], weight: Float[Tensor, "B 1 P P"]
) -> Float[Tensor, ""]:
    """Equation 1: weighted squared error, divided by the number of values of the image that have a weight; a mean over images.

    The unit is half of the pixels' range, as the authors' values are -1 to 1, which sets its share beside the adversarial loss.
    """
    error = (weight * (2 * predicted - 2 * true).square()).sum(dim=(1, 2, 3))
    return (error / ((weight > 0).sum(dim=(1, 2, 3)).clamp(min=1) * true.shape[1])).mean()


@full_precision
def discriminator_loss(real: Float[Tensor, "B 1"], made: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """Equation 2, to minimise: -log D(x) - log(1 - D(F(x))), means over the batch, from logits; 2 log 2 where D cannot tell."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


@full_precision
def generator_loss(made: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """-log D(F(x)), as the authors' code has it; log 2 where D cannot tell."""
    return F.softplus(-made).mean()
