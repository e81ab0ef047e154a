"""Rotation: Unsupervised Representation Learning by Predicting Image Rotations.

Gidaris, Singh and Komodakis, ICLR 2018. https://arxiv.org/abs/1803.07728

Modality   images
Hidden     by how many quarter turns the image was rotated, or by which angle.
Shown      all four rotations of every image in the batch (section 3.1), or several of any angles.
Predicted  0, 90, 180 or 270 degrees, or another set of angles: softmax over them (equations 2 and 3); or the point on the circle.

Axes: B images in the batch, m rotations of each, C channels, S side of an image.
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.heads import mlp
from selfsup.views.crops import RandomCrop
from selfsup.views.rotations import canvas_side, rotate, rotate_any
from selfsup.views.sampling import permutations, uniform


class Rotations:
    """Every image m times, turned against the clock by different angles, side by side.

    Returns "image" (m B, C, S, S) in [0, 1] and "turns" (m B,) int64, the number of the angle, or "angle" (m B,) in radians. The m of an
    image lie side by side, so that a part of the batch, as in gradient accumulation, has each rotation as often as the others.

    Quarter and half turns move pixels. For other angles a larger crop is turned and its central square shown; see `rotate_any`.

    Args:
        image_size: S in pixels.
        smallest_crop: smallest area of the crop that is turned, as a fraction of the image; 1 for the whole central square.
        angles: number of equally spaced angles, 2 or more; 0 for any angle.
        copies: m; all angles where there are no more. Of any angle: a random one, and equal steps from there.
    """

    def __init__(self, image_size: int, smallest_crop: float, angles: int = 4, copies: int = 4) -> None:
        self.exact = angles in (2, 4)
        self.image_size, self.angles = image_size, angles
        self.copies = min(copies, angles) if angles else copies
        self.crop = RandomCrop(image_size if self.exact else canvas_side(image_size), scale=(smallest_crop, 1.0))

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Crops and mirrors each image, then turns it."""
        images = self.crop(batch, generator)["image"]
        rows = len(images)
        step = torch.arange(self.copies, device=images.device)
        if self.angles == 0:
            angle = uniform(rows, generator, 0.0, 2 * math.pi, 1) + step * 2 * math.pi / self.copies
            return {"image": rotate_any(images, angle, self.image_size, generator).flatten(0, 1), "angle": angle.flatten()}
        every = self.copies == self.angles
        turns = step.expand(rows, -1) if every else permutations(rows, generator, self.angles)[:, : self.copies]
        if self.exact:
            quarters = turns.flatten() * (4 // self.angles)
            return {"image": rotate(images.repeat_interleave(self.copies, dim=0), quarters), "turns": turns.flatten()}
        angle = turns * (2 * math.pi / self.angles)
        return {"image": rotate_any(images, angle, self.image_size, generator).flatten(0, 1), "turns": turns.flatten()}


class Rotation(Method):
    """Encoder and a classifier of the rotations, or a regression on their cosine and sine.

    Args:
        encoder: F, maps (B, C, S, S) to (B, encoder.width).
        image_size: S, side of an image, in pixels.
        target: classes tells a set of angles apart, as in the paper; circle predicts the cosine and the sine of any angle.
        angles: number of equally spaced angles, 2 or more; 4 and 2 move pixels, any other number interpolates them for all angles alike, in
            the central square that no turn leaves; the paper has 4, and compares 2 and 8. Unused with target circle.
        copies: rotations of each image in a step, all where there are no more angles; the paper shows all.
        hidden_size: width of the classifier's hidden layer, 0 for a linear classifier as in the paper.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; the paper shifts by up to 4 pixels of 32.
    """

    # The paper: SGD, batches of 128 images, each four times.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        target: Literal["classes", "circle"] = "classes",
        angles: int = 4,
        copies: int = 4,
        hidden_size: int = 0,
        smallest_crop: float = 0.5,
    ) -> None:
        super().__init__()
        if target not in ("classes", "circle"):
            raise ValueError(f'target must be "classes" or "circle", got "{target}"')
        if angles < 2 or copies < 1:
            raise ValueError(f"expected at least 2 angles and at least 1 copy of an image, got {angles=}, {copies=}")
        if hidden_size < 0:
            raise ValueError(f"hidden_size must be positive, or 0 for a linear classifier, got {hidden_size}")
        self.encoder = encoder
        outputs = angles if target == "classes" else 2
        self.classifier = mlp(encoder.width, *([hidden_size] if hidden_size else []), outputs)
        self.views = Rotations(image_size, smallest_crop, angles if target == "classes" else 0, copies)

    def loss(self, views: Batch) -> Tensor:
        """Mean over images and rotations: cross entropy (equation 3) in nats, log of the angles' number by chance; or `circle_error`."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with "accuracy", the share of angles that are recognised, or "degrees", the mean distance to the true angle."""
        predicted = self.classifier(self.encoder(views["image"])).float()
        if "angle" in views:
            metrics = {"degrees": degrees_off(predicted.detach(), views["angle"])}
            yield Update(circle_error(predicted, views["angle"]), metrics=metrics)
        else:
            accuracy = (predicted.detach().argmax(dim=1) == views["turns"]).float().mean()
            yield Update(F.cross_entropy(predicted, views["turns"]), metrics={"accuracy": accuracy})


@full_precision
def circle_error(predicted: Float[Tensor, "N 2"], angle: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean squared distance to (cos, sin) of each angle in radians: continuous where degrees jump from 360 to 0; 1 for a constant guess."""
    return (predicted - torch.stack([angle.cos(), angle.sin()], dim=1)).square().sum(dim=1).mean()


def degrees_off(predicted: Float[Tensor, "N 2"], angle: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean distance around the circle, 0 to 180 degrees; 90 by chance."""
    off = torch.atan2(predicted[:, 1], predicted[:, 0]) - angle
    return torch.atan2(off.sin(), off.cos()).abs().mean().rad2deg()
