"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi and Hinton, ICML 2020. https://arxiv.org/abs/2002.05709
More than two views: Shidani and others, Poly-View Contrastive Learning, ICLR 2024. https://arxiv.org/abs/2403.05490
Version 2: Big Self-Supervised Models are Strong Semi-Supervised Learners, Chen et al., NeurIPS 2020. https://arxiv.org/abs/2006.10029

Modality   images
Hidden     which of the other views in the batch shows the same image.
Shown      two or more crops of every image, each with its own colours and blur (section 3).
Predicted  the partner of every view: softmax over cosine similarities (equation 1).

Axes: B images in the batch, C channels, H height, W width, D projection size.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.distributed import world_size
from selfsup.losses import poly_view
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.kept_head import with_head
from selfsup.models.multicrop import crop_side
from selfsup.views.crops import TwoCrops


class SimCLR(Method):
    """Encoder f and projector g, trained so that the two views of an image agree (algorithm 1).

    Version 2 has a deeper g and keeps its first layer, from which a classifier is fine-tuned (its section 2); `selfsup.distill` then
    teaches a student what the classifier says of unlabelled images (its section 2 too). Its memory of former batches is method moco's.

    Args:
        encoder: f, maps (B, C, H, W) to (B, encoder.width).
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        crops: views of every image, 2 to 8; the paper's is 2. More of them make more of each image and take as much longer; the batch is
            as much smaller, 256 views of 32 images, where 128 images suit two crops.
        version: 1 has one hidden layer in g, 2 has two (the papers have one each).
        kept_layers: hidden layers of g that stay with the encoder after training; None for the papers' 0 in version 1, 1 in version 2.
        temperature: tau of equation 1, no unit; the authors use 0.1 on ImageNet, 0.5 on CIFAR-10 in long runs.
        hidden_size: width of g's hidden layers; the paper's is the encoder's, 2048 for ResNet-50.
        projection_size: D, width of g's output, thrown away after training; the paper's is 128.
        colour_strength: s of appendix A, no unit; 1.0 for ImageNet, 0.5 for CIFAR-10.
        smallest_crop: area of the smallest crop, as a fraction of the image; the paper's is 0.08, short runs
            want less hidden.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    # The paper: LARS, rate 0.3 for each 256 images of a batch of 4,096, weight decay 1e-6, 10 epochs of warm-up of 100 to 1,000.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=7e-4, batch_size=32, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        crops: int = 8,
        version: Literal[1, 2] = 1,
        kept_layers: int | None = None,
        temperature: float = 0.1,
        hidden_size: int = 512,
        projection_size: int = 128,
        colour_strength: float = 0.5,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not 2 <= crops <= 8:
            raise ValueError(f"crops must be 2 to 8, got {crops}")
        hidden = 1 if version == 1 else 2
        kept = hidden - 1 if kept_layers is None else kept_layers
        if not 0 <= kept <= hidden:
            raise ValueError(
                f"kept_layers must be 0 to {hidden} in version {version}, whose projector has {hidden} hidden, got {kept_layers}"
            )
        self.encoder = with_head(encoder, hidden_size=hidden_size, layers=kept)
        self.projector = mlp(self.encoder.width, *[hidden_size] * (hidden - kept), projection_size)
        self.temperature = temperature
        side = crop_side(encoder, image_size, crop_size)
        self.views = TwoCrops(side, colour_strength, scale=(smallest_crop, 1.0), flip=flip, further=crops - 2)  # t, t' of algorithm 1

    def loss(self, views: Batch) -> Tensor:
        # All views in one pass, so that batch normalisation sees every one of them.
        shown = crops_of(views)
        z = self.projector(self.encoder(torch.cat(shown)))
        return poly_view(z.unflatten(0, (len(shown), -1)), self.temperature)  # equation 1 for two views

    def candidates(self, views: Batch) -> int:
        shown = crops_of(views)
        return len(shown) * (len(shown[0]) * world_size() - 1) + 1  # the partner, and all views of other images

    def embed(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        return self.encoder(x)  # h, not z: g drops what the augmentations change (section 4.2); version 2 keeps what its first layer makes

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


def crops_of(views: Batch) -> list[Tensor]:
    """The views (B, C, H, W) of the images, without what else a batch holds."""
    return [x for x in views.values() if x.ndim == 4]
