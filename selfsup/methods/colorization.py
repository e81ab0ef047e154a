"""Colorization: Colorful Image Colorization.

Zhang, Isola and Efros, ECCV 2016. https://arxiv.org/abs/1603.08511

Modality   images
Hidden     the colours: a and b of Lab.
Shown      how light every pixel is: L of Lab, as a gray image.
Predicted  which of 261 colours each place has, at a quarter of the image's size; rare colours weigh more (equation 2).

Axes: B images, S side of an image, t = S / 4 rounded up, Q bins of a and b, N = B t t places.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.distributed import sum_over_processes
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.lightness import seeing
from selfsup.models.maps import feature_map, per_place
from selfsup.views.ab_bins import ab_bins, nearest
from selfsup.views.crops import RandomCrop
from selfsup.views.lab import gray, lab_to_rgb, rgb_to_lab

NEIGHBOURS, SIGMA = 5, 5.0
"""Of the soft encoding, and SIGMA of the smoothed distribution of colours too (section 2.2), in units of a and b."""
LARGEST = 110.0
"""No a or b is larger; the unit of the regression."""


class GrayAndColours:
    """A light random crop without its colours, "gray" (B, 3, S, S) in [0, 1] of equal channels, and these, "ab" (B, 2, t, t).

    Args:
        image_size: S in pixels.
        smallest_crop: smallest area of the crop, as a fraction of the image.
    """

    def __init__(self, image_size: int, smallest_crop: float) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0))

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop of each image."""
        image = self.crop(batch, generator)["image"]
        ab = rgb_to_lab(image)[:, 1:]
        return {"gray": gray(image), "ab": F.adaptive_avg_pool2d(ab, quarter(image.shape[-1]))}


class Colorization(Method):
    """Encoder of lightness and a head that gives a distribution over colours to every place.

    The paper's network keeps an eighth of the image's size by dilation, and its last block doubles that; here the encoder is the user's,
    with its own strides, and the head doubles its map up to a quarter.

    Args:
        encoder: has maps, such as small or resnet18; it is shown images without colours, in training and ever after.
        image_size: S, side of an image, in pixels.
        target: classification of the colours, or regression of a and b (equation 1), which greys them.
        uniform_share: lambda of equation 4, how much of the weights' distribution of colours is uniform, 0 to 1; at 1 every colour weighs
            the same. The paper's is 0.5.
        temperature: T of the annealed mean that `colorize` takes (equation 5), above 0 to 1; the paper's is 0.38, at 1 it is the mean.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1.
    """

    # The paper: Adam, rate 3e-5 that falls twice, decay 1e-3, batches of 40.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)

    bins: Tensor
    counts: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        target: Literal["classification", "regression"] = "classification",
        uniform_share: float = 0.5,
        temperature: float = 0.38,
        smallest_crop: float = 0.5,
    ) -> None:
        super().__init__()
        if target not in ("classification", "regression"):
            raise ValueError(f'target must be "classification" or "regression", got "{target}"')
        if not 0 <= uniform_share <= 1:
            raise ValueError(f"uniform_share must be between 0 and 1, got {uniform_share}")
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature must be above 0 and at most 1, got {temperature}")
        self.encoder = seeing(encoder)
        self.register_buffer("bins", ab_bins().clone())
        # Places of each colour in the batches so far: as many of each before the first, so that all weigh about the same.
        self.register_buffer("counts", torch.ones(len(self.bins), dtype=torch.int64))
        self.head = per_place(self.encoder, 2 if target == "regression" else len(self.bins), image_size, quarter(image_size))
        self.target, self.uniform_share, self.temperature = target, uniform_share, temperature
        self.views = GrayAndColours(image_size, smallest_crop)
        self._new_counts: list[Tensor] = []  # of this step's micro-batches

    def loss(self, views: Batch) -> Tensor:
        """Equation 2 or 1, a mean over places; log Q, or the variance of the colours, where nothing is known."""
        ab = views["ab"]
        predicted = self._predicted(views["gray"], quarter(views["gray"].shape[-1]))
        if self.target == "regression":
            return squared_error(predicted, ab / LARGEST)
        z, which = soft_encode(ab.permute(0, 2, 3, 1).flatten(0, 2), self.bins)
        q = which[:, 0]  # the nearest, which has the most of z
        if self.training:
            self._new_counts.append(q.bincount(minlength=len(self.bins)))
        v = rebalancing(self.counts, self.bins, self.uniform_share)[q]
        return rebalanced_cross_entropy(predicted.permute(0, 2, 3, 1).flatten(0, 2), z, which, v)

    def _predicted(self, shown: Float[Tensor, "B 3 H W"], *sides: int) -> Float[Tensor, "B outputs h w"]:
        return self.head(feature_map(self.encoder, shown), (sides[0], sides[-1])).float()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The distribution of colours is that of all batches so far, of all processes."""
        if self._new_counts:
            self.counts += sum_over_processes(torch.stack(self._new_counts).sum(dim=0))
            self._new_counts.clear()

    @torch.no_grad()
    def colorize(self, gray: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Gray values in [0, 1] as sRGB, of any size that the encoder takes -> colours of the same lightness, where sRGB has them."""
        shown = gray.expand(-1, 3, -1, -1)
        out = self._predicted(shown, quarter(gray.shape[2]), quarter(gray.shape[3]))
        ab = out * LARGEST if self.target == "regression" else annealed_mean(out, self.bins, self.temperature)
        ab = F.interpolate(ab, size=gray.shape[2:], mode="bilinear")
        return lab_to_rgb(torch.cat([rgb_to_lab(shown)[:, :1], ab], dim=1))


def quarter(side: int) -> int:
    """t: colours are predicted at a quarter of the image's size, rounded up (section 2)."""
    return -(-side // 4)


def soft_encode(ab: Float[Tensor, "N 2"], bins: Float[Tensor, "Q 2"]) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Z = H^-1(Y): the five bins nearest to each colour, weighted by a gaussian of their distance; rows of Z sum to 1, nearest first."""
    distance, which = nearest(ab, bins, NEIGHBOURS)
    return (-distance / (2 * SIGMA**2)).softmax(dim=1), which


@full_precision
def rebalancing(counts: Int[Tensor, " Q"], bins: Float[Tensor, "Q 2"], uniform_share: float) -> Float[Tensor, " Q"]:
    """w of equation 4: 1 / ((1 - lambda) p + lambda / Q), scaled so that sum p w = 1, where p is the smoothed share of each colour."""
    near = torch.exp(-(bins[:, None] - bins).square().sum(dim=2) / (2 * SIGMA**2))
    share = counts.to(bins.dtype)
    p = (near / near.sum(dim=0)) @ (share / share.sum())  # each colour's share is spread over the bins around it
    w = 1 / ((1 - uniform_share) * p + uniform_share / len(p))
    return w / (p * w).sum()


@full_precision
def rebalanced_cross_entropy(
    logits: Float[Tensor, "N Q"], z: Float[Tensor, "N k"], which: Int[Tensor, "N k"], v: Float[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Equation 2: - v sum_q Z_q log Zhat_q, a mean over the places instead of the sum; Z is z in the bins `which`, 0 in all others."""
    log_p = logits.gather(1, which) - logits.logsumexp(dim=1, keepdim=True)
    return -(v * (z * log_p).sum(dim=1)).mean()


@full_precision
def squared_error(predicted: Float[Tensor, "B 2 h w"], ab: Float[Tensor, "B 2 h w"]) -> Float[Tensor, ""]:
    """Equation 1: half of the squared distance between predicted and true (a, b), a mean over the places instead of the sum."""
    return (predicted - ab).square().sum(dim=1).mean() / 2


@full_precision
def annealed_mean(logits: Float[Tensor, "B Q h w"], bins: Float[Tensor, "Q 2"], temperature: float) -> Float[Tensor, "B 2 h w"]:
    """Equation 5: the mean colour under softmax(log Zhat / T); the mode as T goes to 0."""
    return torch.einsum("bqhw,qc->bchw", (logits / temperature).softmax(dim=1), bins)
