"""MoCo: Momentum Contrast for Unsupervised Visual Representation Learning, version 2.

He, Fan, Wu, Xie and Girshick, CVPR 2020. https://arxiv.org/abs/1911.05722
Version 2: Chen, Fan, Girshick and He, 2020. https://arxiv.org/abs/2003.04297

Modality   images
Hidden     which of the keys in a queue, filled by the batches before, belongs to the same image.
Shown      two crops of every image: one to the encoder, one to its slowly moving copy.
Predicted  the key of the other crop: softmax over cosine similarities (equation 1).

Axes: B images in the batch of one process, C channels, H height, W width, D projection size, K keys in the queue.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.distributed import gather, rank, world_size
from selfsup.losses import info_nce, wide
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.models.teacher import follow, frozen_copy
from selfsup.views.crops import TwoCrops


class MoCo(Method):
    """Query encoder, key encoder that follows it, and the queue of the latest keys (algorithm 1).

    Args:
        encoder: f_q, maps (B, C, H, W) to (B, encoder.width); f_k starts as its copy.
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        version: 1 has a linear projection and no blur; 2, the default, has a hidden layer, blur and weaker hue (the papers have one each).
        temperature: tau of equation 1, no unit; the papers use 0.07 in version 1, 0.2 in version 2, short runs want 0.1.
        momentum: m of equation 2, the share of f_k that stays at each step, 0 to 1; the paper's 0.999 suits 10^5 steps and more.
        queue_size: K, number of keys; the paper's is 65,536 on ImageNet, that of its authors' notebook for CIFAR-10 4,096.
        hidden_size: width of the projection's hidden layer in version 2; the paper's is the encoder's, 2048 for ResNet-50.
        projection_size: D, width of the projection, thrown away after training; the paper's is 128.
        bn_splits: groups of each process's batch that have batch statistics of their own, 1 for none; the paper trains on 8 devices, and
            on one device without groups a key is made in the company of its query, which section 3.3 advises against.
        symmetric: both crops are queries and both are keys, at twice the cost a step; the paper's are not, short runs want it.
        colour_strength: multiplies the strengths of the colour changes, no unit; the paper's is 1.0.
    """

    # The paper: SGD with momentum 0.9, rate 0.03, batches of 256, weight decay 1e-4, 200 epochs; version 2 lets the rate fall by a cosine.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1.4e-3, batch_size=128, weight_decay=1e-2)

    queue: Tensor
    oldest: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        version: Literal[1, 2] = 2,
        temperature: float = 0.1,
        momentum: float = 0.99,
        queue_size: int = 4096,
        hidden_size: int = 512,
        projection_size: int = 128,
        bn_splits: int = 1,
        symmetric: bool = True,
        colour_strength: float = 1.0,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        if queue_size < 1 or bn_splits < 1:
            raise ValueError(f"queue_size and bn_splits must be at least 1, got queue_size={queue_size}, bn_splits={bn_splits}")
        self.encoder = encoder
        sizes = (encoder.width, projection_size) if version == 1 else (encoder.width, hidden_size, projection_size)
        self.projector = mlp(*sizes, norm=False)
        self.key_encoder, self.key_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_size), dim=-1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))  # the row of the queue that the next key replaces
        self.temperature, self.momentum = temperature, momentum
        self.bn_splits, self.symmetric = bn_splits, symmetric
        side = crop_side(encoder, image_size, crop_size)
        if version == 1:
            self.views = TwoCrops(side, colour_strength, scale=(0.2, 1.0), jitter=1.0, colours=(0.4, 0.4, 0.4, 0.4), blur=0.0)
        else:
            self.views = TwoCrops(side, colour_strength, scale=(0.2, 1.0), colours=(0.4, 0.4, 0.4, 0.1))
        self._new_keys: list[Tensor] = []  # of this step's micro-batches

    def loss(self, views: Batch) -> Tensor:
        """Equation 1 for "first" as queries and "second" as keys; both ways round where `symmetric`."""
        loss = self._one_way(views["first"], views["second"])
        if self.symmetric:
            loss = (loss + self._one_way(views["second"], views["first"])) / 2
        return loss

    def candidates(self, views: Batch) -> int:
        return len(self.queue) + 1

    def _one_way(self, shown: Float[Tensor, "B C H W"], other: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
        queries = F.normalize(self._in_splits(self.encoder, self.projector, shown), dim=-1)
        keys = self._keys(other)
        if self.training:
            self._new_keys.append(keys)
        return info_nce(queries, keys.chunk(world_size())[rank()], self.temperature, negatives=self.queue)

    @torch.no_grad()
    def _keys(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "N D"]:
        """Keys of the images of all processes, N = B world_size, in their order.

        The key of an image is not made in the company in which its query was: batch statistics would tell the two (section 3.3).
        """
        if world_size() == 1 and self.bn_splits == 1:
            return F.normalize(self._in_splits(self.key_encoder, self.key_projector, images), dim=-1)
        images = gather(images)
        order = gather(torch.randperm(len(images), device=images.device)[None])[0]  # the same on every process: that of the first
        mine = order.chunk(world_size())[rank()]
        keys = gather(self._in_splits(self.key_encoder, self.key_projector, images[mine]))
        return F.normalize(keys, dim=-1)[order.argsort()]

    def _in_splits(self, encoder: nn.Module, projector: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Projections in full precision; each of the `bn_splits` parts of the batch goes through alone."""
        if len(images) < 2 * self.bn_splits and self.bn_splits > 1:
            raise ValueError(
                f"bn_splits={self.bn_splits} needs at least {2 * self.bn_splits} images in each forward pass of a process, "
                f"got {len(images)}; choose fewer splits or a larger batch"
            )
        parts = images.tensor_split(self.bn_splits)
        return wide(torch.cat([projector(encoder(part)) for part in parts]))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Equation 2, then the queue: this step's keys replace the oldest ones."""
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_projector, self.projector, self.momentum)
        if self._new_keys:
            keys = torch.cat(self._new_keys)
            self._new_keys.clear()
            rows = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.queue)
            newest = slice(-len(self.queue), None)  # where there are more new keys than places
            self.queue.index_copy_(0, rows[newest], keys[newest])
            self.oldest.add_(len(keys)).remainder_(len(self.queue))

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))
