"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction.

Zbontar, Jing, Misra, LeCun and Deny, ICML 2021. https://arxiv.org/abs/2103.03230

Modality   images
Hidden     each number of the embedding of the other view of the same image.
Shown      two crops of every image; blur and solarization differ from one to the other (section 2.2).
Predicted  that number from its own twin and from no other: the cross-correlation of the views is to be the identity (equations 1 and 2).

Axes: B images in the batch of one process, N in that of all, C channels, H height, W width, D embedding size.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from selfsup.distributed import sum_over_processes, world_size
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.views.crops import TwoCrops

EPSILON = 1e-5
"""Added to variances, as the authors' batch normalisation does: a constant column correlates with nothing instead of giving 0 / 0."""


class BarlowTwins(Method):
    """Encoder and projector, trained so that the embeddings' numbers are invariant and not redundant (algorithm 1).

    The statistics are those of one micro-batch over all processes, so `--accumulate` leaves fewer images for them. The recipe is for short
    runs on small images. The paper's is LARS with lr 0.2 (0.0048 for biases and normalisation) for each 256 images of a batch of 2048,
    weight decay 1.5e-6 and 1000 epochs, of which 10 warm up.

    Args:
        encoder: maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        lambda_: weight of each off-diagonal correlation, no unit; the paper's is 0.005, with 8192^2 of them.
        hidden_size: width of the projector's two hidden layers; the paper's is 8192.
        projection_size: D, width of the projector's output, thrown away after training; the paper's is 8192, and more was better.
        colour_strength: multiplies the strengths of the colour changes, no unit; the paper's is 1.0.
        smallest_crop: area of the smallest crop, as a fraction of the image; the paper's is 0.08, short runs want less hidden.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        lambda_: float = 5e-3,
        hidden_size: int = 1024,
        projection_size: int = 1024,
        colour_strength: float = 1.0,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if lambda_ < 0:
            raise ValueError(f"lambda_ must be at least 0, got {lambda_}")
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden_size, hidden_size, projection_size)
        self.projector[-1].register_parameter("bias", None)  # the loss would not see it
        self.lambda_ = lambda_
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(  # BYOL's, says section 2.2; like SimCLR's, without blur up to 32 pixels
            side,
            colour_strength,
            scale=(smallest_crop, 1.0),
            flip=flip,
            colours=(0.4, 0.4, 0.2, 0.1),
            blur=(1.0, 0.1) if side > 32 else 0.0,
            solarize=(0.0, 0.2),
        )

    def loss(self, views: Batch) -> Tensor:
        # Each view passes alone, as in the authors' code: they look different, and batch statistics are those of one look.
        z_a, z_b = (self.projector(self.encoder(views[view])) for view in ("first", "second"))
        return redundancy(z_a, z_b, self.lambda_)

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


@full_precision
def redundancy(z_a: Float[Tensor, "B D"], z_b: Float[Tensor, "B D"], lambda_: float) -> Float[Tensor, ""]:
    """Equation 1, row i of each being image i: how far the cross-correlation is from the identity.

    Returns:
        Sum over the D^2 pairs; 0 when the views agree and no two numbers are correlated.

    Raises:
        ValueError: fewer than two images over all processes, so that nothing varies.
    """
    c = cross_correlation(z_a, z_b)
    invariance = (1 - c.diagonal()).square().sum()
    return invariance + lambda_ * c.square().fill_diagonal_(0.0).sum()


def cross_correlation(z_a: Float[Tensor, "B D"], z_b: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    """Equation 2 over the images of all processes: correlation of number i of one view with number j of the other, -1 to 1."""
    n = len(z_a) * world_size()
    if n < 2:
        raise ValueError(f"a correlation needs at least 2 images, got {n}")
    return sum_over_processes(_normalise(z_a).T @ _normalise(z_b)) / n


def _normalise(z: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Mean 0 and variance 1 of each column, over the images of all processes."""
    n = len(z) * world_size()
    z = z - sum_over_processes(z.sum(dim=0)) / n
    variance = sum_over_processes(z.square().sum(dim=0)) / n
    return z * (variance + EPSILON).rsqrt()
