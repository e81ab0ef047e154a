"""VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning.

Bardes, Ponce and LeCun, ICLR 2022. https://arxiv.org/abs/2105.04906

Modality   images
Hidden     the embedding of the other view of the same image.
Shown      two crops of every image, each with its own colours, blur and solarization (appendix C.1).
Predicted  the other view's embedding, by mean squared error; variance and covariance of a batch keep it from collapsing (equations 1 to 6).

Axes: B images in the batch of one process, N in that of all, C channels, H height, W width, D embedding size.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.distributed import sum_over_processes, world_size
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.views.crops import TwoCrops

GAMMA, EPSILON = 1.0, 1e-4
"""Standard deviation that each number of the embedding must have, and what is added to variances (equation 2)."""


class VICReg(Method):
    """Encoder f and expander h, trained so that embeddings agree, vary, and say nothing twice (section 4).

    The statistics are those of one micro-batch over all processes, so `--accumulate` leaves fewer images for them. The recipe is for short
    runs on small images. The paper's is LARS with lr 0.2 for each 256 images of a batch of 2048, weight decay 1e-6 and 1000 epochs, of
    which 10 warm up. Clipping is for the first updates, where some starts have gradients of 200 for 5 and do not recover in a short run.

    Args:
        encoder: f, maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        lambda_: weight of the invariance term, no unit; the paper's is 25.
        mu: weight of the variance term, no unit; the paper's is 25.
        nu: weight of the covariance term, no unit; the paper's is 1.
        hidden_size: width of the expander's two hidden layers; the paper's is 8192.
        projection_size: D, width of the expander's output, thrown away after training; the paper's is 8192.
        colour_strength: multiplies the strengths of the colour changes, no unit; the paper's is 1.0.
        smallest_crop: area of the smallest crop, as a fraction of the image; the paper's is 0.08, short runs want less hidden.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1.4e-3, batch_size=128, weight_decay=1e-2, clip=10.0)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        lambda_: float = 25.0,
        mu: float = 25.0,
        nu: float = 1.0,
        hidden_size: int = 1024,
        projection_size: int = 1024,
        colour_strength: float = 1.0,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if min(lambda_, mu, nu) < 0:
            raise ValueError(f"lambda_, mu and nu must be at least 0, got lambda_={lambda_}, mu={mu}, nu={nu}")
        self.encoder = encoder
        self.expander = mlp(encoder.width, hidden_size, hidden_size, projection_size)
        self.expander[-1].register_parameter("bias", None)  # the loss would not see it
        self.lambda_, self.mu, self.nu = lambda_, mu, nu
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(  # like SimCLR's, without blur up to 32 pixels
            side, colour_strength, scale=(smallest_crop, 1.0), flip=flip, colours=(0.4, 0.4, 0.2, 0.1), solarize=0.1
        )

    def loss(self, views: Batch) -> Tensor:
        # Each view passes alone, as in the authors' code, so that batch statistics are those of one view.
        z, z_prime = (self.expander(self.encoder(views[view])) for view in ("first", "second"))
        return vicreg(z, z_prime, self.lambda_, self.mu, self.nu)

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.expander(self.encoder(x))


@full_precision
def vicreg(z: Float[Tensor, "B D"], z_prime: Float[Tensor, "B D"], lambda_: float, mu: float, nu: float) -> Float[Tensor, ""]:
    """Equation 6, lambda s(Z, Z') + mu v + nu c, row i of each being image i, with v and c over the images of all processes.

    Two factors are those of the authors' code, for which 25, 25 and 1 are meant: s is the mean over the D numbers as well (equation 5 sums
    over them), and v is the mean of v(Z) and v(Z') (equation 6 adds them); c is c(Z) + c(Z') in both.

    Raises:
        ValueError: fewer than two images over all processes, so that nothing varies.
    """
    s = F.mse_loss(z, z_prime)
    covariances = covariance(z), covariance(z_prime)
    v = sum(variance_term(c) for c in covariances) / 2
    c = sum(covariance_term(c) for c in covariances)
    return lambda_ * s + mu * v + nu * c


def covariance(z: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    """Equation 3 over the images of all processes, with N - 1 below the line."""
    n = len(z) * world_size()
    if n < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {n}")
    z = z - sum_over_processes(z.sum(dim=0)) / n
    return sum_over_processes(z.T @ z) / (n - 1)


def variance_term(c: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    """Equation 1: how far the standard deviations on the diagonal are below gamma, on average; 0 to gamma."""
    # Careful: without epsilon the root's slope is infinite where all embeddings are one, and a collapse could not be undone.
    return F.relu(GAMMA - torch.sqrt(c.diagonal() + EPSILON)).mean()


def covariance_term(c: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    """Equation 4: squares of the off-diagonal covariances, summed and divided by D."""
    return c.square().fill_diagonal_(0.0).sum() / len(c)
