"""Crops smaller than the image: their sides, and crops of several sizes through one network, as SwAV and DINO show them.

Axes: B images, C channels, V crops of an image.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.kept_head import EncoderAndHead
from selfsup.models.resnet import ResNet
from selfsup.models.small import Small
from selfsup.models.vit import ViT

LEAST = 24
"""Side of an image in pixels up to which its crops are not made smaller."""


def crop_side(encoder: Encoder, image_size: int, given: int | None) -> int:
    """Side in pixels of the crops that are all an encoder sees in training.

    A random crop enlarges what is in it. A network that is to see whole images is better trained on crops of fewer pixels, where things
    have the size that they will have (1906.06423, section 3), and that is faster as well.

    Args:
        encoder: what sees them.
        image_size: side of a whole image as the encoder sees it after training, in pixels.
        given: the side that was asked for; None for three quarters of image_size, at least 24, where the encoder averages over any number
            of places: the small network and ResNets. Others get image_size, since they may have been made for it.

    Raises:
        ValueError: a side that is not between 1 and image_size, or not of whole patches of a ViT.
    """
    if given is None:
        any_size = isinstance(_innermost(encoder), Small | ResNet)
        return max(image_size * 3 // 4, min(image_size, LEAST)) if any_size else image_size
    patch = _patch(encoder)
    if not 1 <= given <= image_size or given % patch:
        whole = f", and a multiple of the vit's patch of {patch} pixels" if patch > 1 else ""
        raise ValueError(f"crop_size must be 1 to image_size, {image_size}{whole}, got {given}")
    return given


def crop_sizes(
    encoder: Encoder, image_size: int, crop_size: int | None, local_size: int | None, local_views: int | None
) -> tuple[int, int, int]:
    """Side of the large crops, side of the small ones, both in pixels, and number of the small ones; what is None is chosen.

    Args:
        encoder: what sees them.
        image_size: side of a whole image, in pixels.
        crop_size: side of a large crop, see `crop_side`.
        local_size: side of a small crop; None for half of a large one's, rounded down to whole patches where the encoder is a ViT.
        local_views: small crops of every image; None for 4, and for 0 beside large ones of less than 64 pixels, where they show
            hardly anything, and hurt (docs/log.md).
    """
    side, patch = crop_side(encoder, image_size, crop_size), _patch(encoder)
    small = local_size or max(1, side // 2 // patch) * patch
    return side, small, (4 if side >= 64 else 0) if local_views is None else local_views


def one_pass_a_size(encoder: nn.Module, crops: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "rows width"]:
    """Vectors of all crops, V B rows, crop by crop; neighbours of one size go through the encoder together, in one batch."""
    return torch.cat([encoder(torch.cat(list(same))) for _, same in groupby(crops, key=lambda crop: crop.shape[-1])])


def _patch(encoder: Encoder) -> int:
    """Pixels of which the side of a crop must be a multiple."""
    network = _innermost(encoder)
    return network.patch_size if isinstance(network, ViT) else 1


def _innermost(encoder: Encoder) -> Encoder:
    """The network below the kept layers of a head, as an encoder comes back when a run goes on."""
    return encoder.encoder if isinstance(encoder, EncoderAndHead) else encoder
