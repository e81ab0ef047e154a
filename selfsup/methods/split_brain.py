"""Split-brain: Split-Brain Autoencoders, Unsupervised Learning by Cross-Channel Prediction.

Zhang, Isola and Efros, CVPR 2017. https://arxiv.org/abs/1611.09842

Modality   images
Hidden     from each half of the network the channels that the other half sees.
Shown      L of Lab to one half, a and b to the other; or any other two parts of the channels.
Predicted  each half's hidden channels at every place, as classes or as numbers; both halves' vectors are kept.

Axes: B images, C channels, S side of an image, t = S / 4 rounded up, h and w sides of a map, G groups of channels with one
class each, Q classes.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.build import input_channels
from selfsup.models.maps import feature_map, per_place
from selfsup.models.split import Split, split_encoder
from selfsup.views.ab_bins import ab_bins, nearest
from selfsup.views.crops import RandomCrop

LEVELS = 50
"""Classes of L, 2 units each, and of any other single channel."""
UNIT = 100.0
"""Of L, a and b in the regression, and the largest L."""


class SplitBrain(Method):
    """Two networks of half the width: F_1 predicts X_2 from X_1, F_2 predicts X_1 from X_2 (section 3.2).

    Classes are plain, one for a place, without the soft encoding and the rebalancing of colorization, as in the paper: a and b of Lab
    together are one of 261, L and any other channel one of 50 equal levels.

    Args:
        encoder: names the network of which both halves are made, one with maps: small, resnet18, resnet34, resnet50 or dcgan.
        image_size: S, side of an image, in pixels.
        split: "lab" for L against a and b; or how many channels the first half sees, and how many the second, as "3+1" for colour
            against depth.
        target: classification, or regression of the values; the paper has both.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)

    bins: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        split: str = "lab",
        target: Literal["classification", "regression"] = "classification",
        smallest_crop: float = 0.5,
    ) -> None:
        super().__init__()
        if target not in ("classification", "regression"):
            raise ValueError(f'target must be "classification" or "regression", got "{target}"')
        self.encoder = split_encoder(encoder, split)
        self.split, self.target = split, target
        self.register_buffer("bins", ab_bins().clone())
        t = -(-image_size // 4)
        first, second = self.encoder.first, self.encoder.second
        self.predict_second = per_place(first, self._outputs(second), image_size, t)
        self.predict_first = per_place(second, self._outputs(first), image_size, t)
        self.views = RandomCrop(image_size, scale=(smallest_crop, 1.0))

    def _outputs(self, predicted: Encoder) -> int:
        """Numbers at a place that predict all channels which this half sees."""
        channels = input_channels(predicted)
        if self.target == "regression":
            return channels
        return len(self.bins) if self.split == "lab" and channels == 2 else LEVELS * channels

    def loss(self, views: Batch) -> Tensor:
        """Sum of both halves' errors, each a mean over places."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with both errors: "second from first" and "first from second", in nats where they are classes."""
        assert isinstance(self.encoder, Split)
        x_1, x_2 = self.encoder.parts(views["image"])
        t = -(-x_1.shape[-1] // 4)
        of_2 = self.predict_second(feature_map(self.encoder.first, x_1), (t, t))
        of_1 = self.predict_first(feature_map(self.encoder.second, x_2), (t, t))
        errors = [self.error(p, F.adaptive_avg_pool2d(x, t)) for p, x in ((of_2, x_2), (of_1, x_1))]
        metrics = {"second from first": errors[0].detach(), "first from second": errors[1].detach()}
        yield Update(errors[0] + errors[1], metrics=metrics)

    def error(self, predicted: Float[Tensor, "B outputs h w"], x: Float[Tensor, "B channels h w"]) -> Float[Tensor, ""]:
        """Cross entropy with the classes of x, or half of the squared error, a mean over places."""
        if self.target == "regression":
            return squared_error(predicted, x / UNIT if self.split == "lab" else x)
        classes = ab_classes(x, self.bins) if self.split == "lab" and x.shape[1] == 2 else levels(x, UNIT if self.split == "lab" else 1.0)
        return cross_entropy(predicted, classes)


def ab_classes(ab: Float[Tensor, "B 2 h w"], bins: Float[Tensor, "Q 2"]) -> Int[Tensor, "B 1 h w"]:
    """The bin that is nearest to each place's colour."""
    _, which = nearest(ab.permute(0, 2, 3, 1).flatten(0, 2), bins)
    return which.view(len(ab), 1, *ab.shape[2:])


def levels(x: Float[Tensor, "B G h w"], largest: float) -> Int[Tensor, "B G h w"]:
    """Which of 50 equal parts of 0 to `largest` each value is in."""
    return (x * (LEVELS / largest)).long().clamp(0, LEVELS - 1)


@full_precision
def cross_entropy(logits: Float[Tensor, "B GQ h w"], classes: Int[Tensor, "B G h w"]) -> Float[Tensor, ""]:
    """- log p of the true classes, summed over the G channels, a mean over places; G log Q where nothing is known."""
    groups = classes.shape[1]
    return groups * F.cross_entropy(logits.unflatten(1, (groups, -1)).transpose(1, 2), classes)


@full_precision
def squared_error(predicted: Float[Tensor, "B C h w"], x: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Half of the squared distance, summed over channels, a mean over places."""
    return (predicted - x).square().sum(dim=1).mean() / 2
