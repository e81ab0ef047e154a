"""BYOL: Bootstrap Your Own Latent, A New Approach to Self-Supervised Learning.

Grill, Strub, Altché, Tallec, Richemond and others, NeurIPS 2020. https://arxiv.org/abs/2006.07733

Modality   images
Hidden     what a slowly moving copy of the network makes of another view of the same image.
Shown      two crops of every image; blur and solarization differ from one to the other (appendix B).
Predicted  the copy's normalised projection, by mean squared error (equation 2); no negatives.

Axes: B images in the batch, C channels, H height, W width, D projection size.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.models.teacher import follow, frozen_copy
from selfsup.views.crops import TwoCrops


class BYOL(Method):
    """Online network theta (f, g, q) and the target network xi (f, g without q) that follows it (algorithm 1).

    The recipe is for short runs on small images. The paper's is LARS with lr 0.2 for each 256 images of a batch of 4096, weight decay
    1.5e-6 and 1000 epochs, of which 10 warm up.

    Args:
        encoder: f, maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        tau_base: share of the target that stays at the first step, 0 to 1; it rises to 1 by the last one. The paper's 0.996 suits 10^5
            steps and more, 0.99, its value for 300 epochs, tens of thousands; 0.96 suits some hundred to thousands of steps.
        hidden_size: width of the hidden layer of the projector g and of the predictor q; the paper's is 4096.
        projection_size: D, width of the outputs of g and q, thrown away after training; the paper's is 256.
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
        tau_base: float = 0.96,
        hidden_size: int = 1024,
        projection_size: int = 256,
        colour_strength: float = 1.0,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= tau_base <= 1:
            raise ValueError(f"tau_base must be between 0 and 1, got {tau_base}")
        self.encoder = encoder
        # The paper does not say how these begin. At random all outputs are almost parallel, and there are no negatives to tell them apart.
        self.projector = mlp(encoder.width, hidden_size, projection_size, centred=True)
        self.predictor = mlp(projection_size, hidden_size, projection_size, centred=True)
        self.target_encoder, self.target_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        self.tau_base = tau_base
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(  # t and t' of appendix B, table 6; like SimCLR's, without blur up to 32 pixels
            side,
            colour_strength,
            scale=(smallest_crop, 1.0),
            flip=flip,
            colours=(0.4, 0.4, 0.2, 0.1),
            blur=(1.0, 0.1) if side > 32 else 0.0,
            solarize=(0.0, 0.2),
        )

    def loss(self, views: Batch) -> Tensor:
        """Equation 2 both ways round, added (section 3.1)."""
        v, w = views["first"], views["second"]
        # Each view passes alone, as in the authors' code: v and w look different, and batch statistics are those of one look.
        q_v, q_w = (self.predictor(self.projector(self.encoder(x))) for x in (v, w))
        with torch.no_grad():
            z_v, z_w = (self.target_projector(self.target_encoder(x)) for x in (v, w))
        return regression(q_v, z_w) + regression(q_w, z_v)

    def after_step(self, progress: float) -> None:
        """xi <- tau xi + (1 - tau) theta; the target's batch statistics are its own."""
        tau = tau_at(progress, self.tau_base)
        follow(self.target_encoder, self.encoder, tau)
        follow(self.target_projector, self.projector, tau)

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


@full_precision
def regression(q: Float[Tensor, "B D"], z: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Equation 2: mean squared distance of the normalised rows, 2 - 2 cos; 0 when they are parallel, 4 when opposite."""
    return 2 - 2 * (F.normalize(q, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()


def tau_at(progress: float, tau_base: float) -> float:
    """Section 3.3: 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2, from tau_base to 1; progress = k / K, 0 to 1."""
    return 1 - (1 - tau_base) * (math.cos(math.pi * progress) + 1) / 2
