"""SimSiam: Exploring Simple Siamese Representation Learning.

Chen and He, CVPR 2021. https://arxiv.org/abs/2011.10566

Modality   images
Hidden     the projection of the other view of the same image.
Shown      two crops of every image, each with its own colours and blur (appendix A).
Predicted  the other view's projection, by cosine; no negatives, no moving copy (algorithm 1).

Axes: B images in the batch, C channels, H height, W width, D projection size.
"""

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.views.crops import TwoCrops


class SimSiam(Method):
    """Encoder with projector f, and predictor h; the gradient stops at the target (algorithm 1).

    The recipe is for short runs on small images. The paper's is SGD with lr 0.05 for each 256 images of a batch of 512, weight decay 1e-4
    and 100 epochs on ImageNet; 0.03, 5e-4 and 800 epochs on CIFAR-10. Its variant whose predictor keeps a constant learning rate (table 1c,
    68.1 instead of 67.7 %) is not offered: a run has one rate for all weights.

    Args:
        encoder: the backbone of f, maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        projection_size: D, width of the three layers of f's projector, thrown away after training; the paper's is 2048.
        bottleneck: width of h's hidden layer; the paper's is a quarter of D, 512.
        colour_strength: multiplies the strengths of the colour changes, no unit; the paper's is 1.0.
        smallest_crop: area of the smallest crop, as a fraction of the image; the paper's is 0.2.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=5e-4, batch_size=64, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        projection_size: int = 512,
        bottleneck: int = 128,
        colour_strength: float = 1.0,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # Batch normalisation after every layer, the output too (section 3); hidden layers alone lose a point, none a half (table 3).
        self.projector = mlp(encoder.width, projection_size, projection_size, projection_size, last_norm=True)
        self.predictor = mlp(projection_size, bottleneck, projection_size)
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(side, colour_strength, scale=(smallest_crop, 1.0), flip=flip, colours=(0.4, 0.4, 0.4, 0.1))

    def loss(self, views: Batch) -> Tensor:
        """Equation 4: each view predicts the other, halved."""
        # Each view passes alone, as in algorithm 1, so that batch statistics are those of one view.
        z1, z2 = (self.projector(self.encoder(views[view])) for view in ("first", "second"))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return distance(p1, z2) / 2 + distance(p2, z1) / 2

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


@full_precision
def distance(p: Float[Tensor, "B D"], z: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Equation 1: negative cosine similarity, -1 to 1; no gradient flows into z (equation 3)."""
    return -(F.normalize(p, dim=1) * F.normalize(z.detach(), dim=1)).sum(dim=1).mean()
