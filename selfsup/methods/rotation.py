"""Rotation: Unsupervised Representation Learning by Predicting Image Rotations.

Gidaris, Singh and Komodakis, ICLR 2018. https://arxiv.org/abs/1803.07728

Modality   images
Hidden     by how many quarter turns the image was rotated.
Shown      all four rotations of every image in the batch (section 3.1).
Predicted  0, 90, 180 or 270 degrees: softmax over the four (equations 2 and 3).

Axes: B images in the batch, C channels, S side of an image.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.heads import mlp
from selfsup.views.crops import RandomCrop
from selfsup.views.rotations import rotate


class FourRotations:
    """Every image four times, turned by 0, 90, 180 and 270 degrees against the clock.

    Returns "image" (4B, C, S, S) in [0, 1] and "turns" (4B,) int64, 0 to 3. The four of an image lie side by side, so that a part of the
    batch, as in gradient accumulation, has every rotation as often as the others.

    Args:
        image_size: S in pixels.
        smallest_crop: smallest area of the crop that is turned, as a fraction of the image; 1 for the whole central square.
    """

    def __init__(self, image_size: int, smallest_crop: float) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0))

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Crops and mirrors each image, then turns it."""
        images = self.crop(batch, generator)["image"]
        turns = torch.arange(4, device=images.device).repeat(len(images))
        return {"image": rotate(images.repeat_interleave(4, dim=0), turns), "turns": turns}


class Rotation(Method):
    """Encoder and a classifier of the four rotations.

    Args:
        encoder: F, maps (B, C, S, S) to (B, encoder.width).
        image_size: S, side of an image, in pixels.
        hidden_size: width of the classifier's hidden layer, 0 for a linear classifier as in the paper.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; the paper shifts by up to 4 pixels of 32.
    """

    # The paper: SGD, batches of 128 images, each four times.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=1e-2)

    def __init__(self, encoder: Encoder, *, image_size: int = 224, hidden_size: int = 0, smallest_crop: float = 0.5) -> None:
        super().__init__()
        if hidden_size < 0:
            raise ValueError(f"hidden_size must be positive, or 0 for a linear classifier, got {hidden_size}")
        self.encoder = encoder
        self.classifier = mlp(encoder.width, *([hidden_size] if hidden_size else []), 4)
        self.views = FourRotations(image_size, smallest_crop)

    def loss(self, views: Batch) -> Tensor:
        """Mean cross entropy over images and rotations (equation 3), in nats; log 4 by chance."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with "accuracy": the share of rotations that are recognised, 1/4 by chance."""
        logits = self.classifier(self.encoder(views["image"])).float()
        accuracy = (logits.detach().argmax(dim=1) == views["turns"]).float().mean()
        yield Update(F.cross_entropy(logits, views["turns"]), metrics={"accuracy": accuracy})
