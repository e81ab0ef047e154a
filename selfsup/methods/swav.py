"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, NeurIPS 2020. https://arxiv.org/abs/2006.09882

Modality   images
Hidden     the code of another crop of the same image: a soft, balanced assignment to prototypes.
Shown      two large crops and several small ones of every image (multi-crop, section 3.2).
Predicted  the codes of the large crops, from every other crop: softmax over the prototypes (equation 2).

Axes: B images in the batch of one process, C channels, H height, W width, V crops, D projection size, K prototypes, L queue size, N rows.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.distributed import gather, rank, sum_over_processes, world_size
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_sizes, one_pass_a_size
from selfsup.views.crops import MultiCrop


class SwAV(Method):
    """Encoder f with its projection, and the prototypes C; codes come from the Sinkhorn-Knopp algorithm (section 3.1).

    Args:
        encoder: f, maps (B, C, H, W) to (B, encoder.width), for both sizes of crops.
        image_size: height and width of an image, in pixels.
        crop_size: side of a large crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where
            the encoder is small or a ResNet, so that things are as large in a crop as in the whole image; all of it for others.
        prototypes: K, number of clusters; the paper's is 3000 for ImageNet's 1000 classes and batches of 4096. As all get the same share of
            the features that codes are made with, there should not be more of them than of those.
        temperature: tau of equation 2, no unit; the paper's is 0.1.
        epsilon: of equation 3, how soft codes are, no unit, 0.01 or more; the paper's is 0.05, short runs want it lower. Too large and all
            codes become equal.
        iterations: of Sinkhorn-Knopp; the paper's is 3.
        queue_size: L, features of each large crop from the batches before that codes are made with, 0 for none; 3840 in the paper's
            small batches of 256. It is used once it is full. Short runs want none: the network soon differs from the one it came from.
        queue_from: part of the training after which the queue is filled, 0 to 1; the paper's is 15 epochs of 200, 0.075.
        freeze_prototypes: part of the training in which prototypes stay as they are, 0 to 1; the paper's is its first epoch, of 100 to 800.
        hidden_size: width of the projection's hidden layer; the paper's is 2048.
        projection_size: D, width of the projection, thrown away after training; the paper's is 128.
        local_views: small crops of every image, V is two more; the paper's is 6; None for 4, and for 0 beside large crops below 64 pixels.
        local_size: side of a small crop, in pixels; half of a large one's when not given, the paper's is 96 beside 224.
        crop_split: largest area of a small crop and smallest of a large one, as a fraction of the image; the paper's is 0.14.
        smallest_crop: smallest area of a small crop, as a fraction of the image; the paper's is 0.05.
        colour_strength: multiplies the strengths of the colour changes, no unit; 1.0 in the paper, 0.5 for CIFAR-10.
    """

    # The paper: LARS, lr 4.8 for batches of 4096, weight decay 1e-6, 10 epochs of warm-up.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=1e-2)

    queue: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        prototypes: int = 64,
        temperature: float = 0.1,
        epsilon: float = 0.03,
        iterations: int = 3,
        queue_size: int = 0,
        queue_from: float = 0.1,
        freeze_prototypes: float = 0.0,
        hidden_size: int = 512,
        projection_size: int = 128,
        local_views: int | None = None,
        local_size: int | None = None,
        crop_split: float = 0.2,
        smallest_crop: float = 0.1,
        colour_strength: float = 0.5,
    ) -> None:
        super().__init__()
        if prototypes < 2 or iterations < 1 or queue_size < 0:
            raise ValueError(
                f"prototypes must be at least 2, iterations 1 and queue_size 0, got prototypes={prototypes}, iterations={iterations}, "
                f"queue_size={queue_size}"
            )
        if temperature <= 0 or epsilon < 0.01:
            raise ValueError(f"temperature must be positive and epsilon at least 0.01, got temperature={temperature}, epsilon={epsilon}")
        for name, part in {"queue_from": queue_from, "freeze_prototypes": freeze_prototypes}.items():
            if not 0 <= part <= 1:
                raise ValueError(f"{name} is a part of the training and must be between 0 and 1, got {part}")
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden_size, projection_size)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, projection_size), dim=1))  # C, one in a row
        self.register_buffer("queue", torch.zeros(2, queue_size, projection_size))  # newest first; zeros where nothing has been put yet
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from, self.freeze_prototypes = queue_from, freeze_prototypes
        sizes = crop_sizes(encoder, image_size, crop_size, local_size, local_views)
        views = MultiCrop(
            *sizes,
            colour_strength=colour_strength,
            global_scale=(crop_split, 1.0),
            local_scale=(smallest_crop, crop_split),
            colours=(0.8, 0.8, 0.8, 0.2),
            blur=(0.5, 0.5, 0.5) if sizes[0] > 32 else (0.0, 0.0, 0.0),
            solarize=(0.0, 0.0, 0.0),
        )
        self.views, self.crops = views, list(views.looks)
        self._new_features: list[Tensor] = []  # of this step's micro-batches

    def loss(self, views: Batch) -> Tensor:
        """Equation 6: every crop predicts the codes of the large ones, but of itself; a mean over pairs and images."""
        self.prototypes.requires_grad_(self.progress >= self.freeze_prototypes)
        h = one_pass_a_size(self.encoder, [views[name] for name in self.crops])
        z = F.normalize(self.projector(h).float(), dim=1).unflatten(0, (len(self.crops), -1))  # (V, B, D), section 3
        codes = self._codes(z[:2].detach())
        if self.training and self.progress >= self.queue_from:
            self._new_features.append(gather(z[:2].detach().transpose(0, 1).contiguous()))
        return swapped_prediction(similarities(z, self.prototypes), codes, self.temperature)

    @torch.no_grad()
    def _codes(self, z: Float[Tensor, "2 B D"]) -> Float[Tensor, "2 B K"]:
        """Codes of the large crops, each among the features of its own kind from all processes and from the queue, which get none."""
        full = self.queue.shape[1] > 0 and bool(self.queue[:, -1].any())
        codes = []
        for own, older in zip(z, self.queue, strict=True):
            # Every process holds the whole queue, for checkpoints, and brings its share of the rows.
            rows = torch.cat([own, older[rank() :: world_size()]]) if full else own
            codes.append(sinkhorn(similarities(rows, self.prototypes), self.epsilon, self.iterations)[: len(own)])
        return torch.stack(codes)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prototypes get length 1 again; this step's features go into the queue and push out the oldest."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        if self._new_features and self.queue.shape[1] > 0:
            new = torch.cat(self._new_features).transpose(0, 1)
            self.queue.copy_(torch.cat([new, self.queue], dim=1)[:, : self.queue.shape[1]])
        self._new_features.clear()

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """The softmax of equation 2."""
        z = F.normalize(self.projector(self.encoder(x)).float(), dim=1)
        return F.softmax(similarities(z, self.prototypes) / self.temperature, dim=1)


@full_precision
def similarities(z: Float[Tensor, "*rows D"], prototypes: Float[Tensor, "K D"]) -> Float[Tensor, "*rows K"]:
    """Cosines z^T c of features and prototypes of length 1, -1 to 1."""
    return z @ prototypes.T


@torch.no_grad()
@full_precision
def sinkhorn(scores: Float[Tensor, "N K"], epsilon: float, iterations: int) -> Float[Tensor, "N K"]:
    """Codes Q of equations 3 to 5, transposed: soft assignments of which all prototypes get about the same share of all processes' rows.

    Args:
        scores: cosines z^T c, -1 to 1; the rows of this process.
        epsilon: weight of the entropy in equation 3.
        iterations: of making the prototypes' shares equal, then each row's total.

    Returns:
        Each row sums to 1 exactly; after many iterations each column sums to (rows of all processes) / K.
    """
    q = ((scores.double() - 1) / epsilon).exp()  # exp(C^T Z / epsilon), up to a factor that every normalisation takes out
    for _ in range(iterations):
        # u and v of equation 5. A prototype's total 1 / K and a row's 1 / N are both left at 1: constants, which the next line takes out.
        q /= sum_over_processes(q.sum(dim=0))
        q /= q.sum(dim=1, keepdim=True)
    return q.to(scores.dtype)


@full_precision
def swapped_prediction(scores: Float[Tensor, "V B K"], codes: Float[Tensor, "2 B K"], temperature: float) -> Float[Tensor, ""]:
    """Equations 1, 2 and 6: cross entropy of crop v's softmax and the code of crop i, over the 2 (V - 1) pairs where v is not i.

    Returns:
        Mean over pairs and images, in nats; log K where every score is the same.
    """
    log_p = F.log_softmax(scores / temperature, dim=-1)
    pairs = -torch.einsum("ibk,vbk->iv", codes, log_p) / scores.shape[1]  # (2, V)
    return (pairs.sum() - pairs.diagonal().sum()) / (pairs.numel() - 2)
