"""SupCon: Supervised Contrastive Learning, with labels where there are some.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu and Krishnan, NeurIPS 2020. https://arxiv.org/abs/2004.11362

Modality   images
Hidden     which of the other 2B - 1 views in the batch show the same class; where the label is unknown, the same image.
Shown      two crops of every image, each with its own colours and blur (section 3.1), and the image's label where it has one.
Predicted  every partner of every view: softmax over cosine similarities, the sum outside the logarithm (equation 2).

Axes: B images in the batch, C channels, H height, W width, D projection size.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.losses import supcon
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.views.crops import TwoCrops


class SupCon(Method):
    """Encoder and projection network, trained so that views of one class agree; without any label it is SimCLR (section 3.2).

    Labels are read from the data and may be missing, for all items or for some. The paper labels all of them. An item without a label has
    one partner, its own other view, and is everybody else's negative. What comes out has seen the labels: compare it with classifiers.
    Views are SimCLR's, where the paper's best results on ImageNet have AutoAugment; and Proj gets r as it is, as in the authors' PyTorch
    code, where section 3.1 gives it length 1 first.

    Args:
        encoder: Enc, maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        temperature: tau of equation 2, no unit; the paper's is 0.1.
        hidden_size: width of Proj's hidden layer; the paper's is the encoder's, 2048 for ResNet-50.
        projection_size: D, width of Proj's output, thrown away after training; the paper's is 128.
        colour_strength: multiplies the strengths of the colour changes, no unit; 1.0 for ImageNet, 0.5 for CIFAR-10.
        smallest_crop: area of the smallest crop, as a fraction of the image; the authors' code has 0.2.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    # The paper: batches of 6,144 images for ResNet-50, LARS or SGD with momentum, 350 to 1,000 epochs.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1.4e-3, batch_size=128, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        temperature: float = 0.1,
        hidden_size: int = 512,
        projection_size: int = 128,
        colour_strength: float = 0.5,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden_size, projection_size, norm=False)
        self.temperature = temperature
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(side, colour_strength, scale=(smallest_crop, 1.0), flip=flip)

    def loss(self, views: Batch) -> Tensor:
        """Equation 2, a mean over the 2B views, in nats."""
        r = self.encoder(torch.cat([views["first"], views["second"]]))  # Both views in one pass, so that batch normalisation sees all.
        return supcon(self.projector(r), groups(views).repeat(2), self.temperature)

    def embed(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        return self.encoder(x)  # r, not z: section 3.1 discards Proj

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


def groups(views: Batch) -> Int[Tensor, " B"]:
    """A number for each image, equal for those of one class and below zero where each is its own group; the same on every process."""
    image = views["index"]
    label = views.get("label", torch.full_like(image, -1))
    return torch.where(label >= 0, label, -1 - image)
