"""Crops of several sizes through one network, as SwAV and DINO show them.

Axes: B images, C channels, V crops of an image.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.vit import ViT


def local_size(encoder: Encoder, image_size: int) -> int:
    """Side of the small crops in pixels: half of the image's, rounded down to whole patches where the encoder is a ViT."""
    patch = encoder.patch_size if isinstance(encoder, ViT) else 1
    return max(1, image_size // 2 // patch) * patch


def one_pass_a_size(encoder: nn.Module, crops: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "rows width"]:
    """Vectors of all crops, V B rows, crop by crop; neighbours of one size go through the encoder together, in one batch."""
    return torch.cat([encoder(torch.cat(list(same))) for _, same in groupby(crops, key=lambda crop: crop.shape[-1])])
