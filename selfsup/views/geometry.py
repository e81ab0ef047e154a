"""Random resized crops of a whole batch: boxes by torchvision's algorithm, then two batched matrix products.

Cropping, antialiased bilinear resizing and flipping are linear and act on rows and columns apart from each other. So a view is
R X K^T, with a matrix R (S, H) that picks, averages and orders rows, and a matrix K (S, W) for columns; every image has its own.
What lies outside of an image's box has weight 0 in them: neither its neighbourhood nor the padding of the canvas can leak in.

Axes: B images, C channels, H and W of the canvas, S side of the view.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from selfsup.method import Batch
from selfsup.views.sampling import uniform

TRIES = 10
"""How many random boxes are tried before the central one is taken, as in torchvision."""

MATRIX_LIMIT = 250_000
"""Multiplications per channel above which matrices lose to cutting images one by one (measured: 64 to 32 wins, 64 to 48 loses)."""


def canvas(batch: Batch) -> tuple[UInt8[Tensor, "B C H W"], Int[Tensor, "B 2"]]:
    """The raw images of a batch, and the height and width that each fills of its canvas.

    Raises:
        ValueError: the batch holds no images, or not as uint8.
    """
    if "image" not in batch:
        raise ValueError(
            f'crops need raw images: a batch with "image" (B, C, H, W) uint8, got {sorted(batch)}; these views are not for vectors'
        )
    images = batch["image"]
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"raw images must be (B, C, H, W) uint8, 0 to 255, got {tuple(images.shape)} {images.dtype}")
    if "size" in batch:
        return images, batch["size"]
    return images, torch.tensor(images.shape[2:], device=images.device).expand(len(images), 2)


def random_boxes(
    sizes: Int[Tensor, "B 2"], generator: torch.Generator, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Int[Tensor, "B 4"]:
    """Boxes of torchvision's RandomResizedCrop, one for each image.

    Args:
        sizes: height and width of each image, in pixels.
        generator: source of the random numbers.
        scale: smallest and largest area of a box, as fractions of the image's area; uniform.
        ratio: smallest and largest width / height; its logarithm is uniform.
    Returns:
        top, left, height, width in pixels. The first of 10 drawn boxes that fits into the image; where none fits, the largest central one
        whose ratio is in range.
    """
    rows = len(sizes)
    height, width = sizes[:, :1], sizes[:, 1:]  # (B, 1)
    area = uniform(rows, generator, *scale, TRIES) * (height * width)
    shape = uniform(rows, generator, math.log(ratio[0]), math.log(ratio[1]), TRIES).exp()
    w, h = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()  # (B, TRIES)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.byte().argmax(dim=1, keepdim=True)  # argmax gives the first of equals
    found = fits.gather(1, first)
    central_w = torch.minimum(width, (height * ratio[1]).round().long().clamp(min=1))
    central_h = torch.minimum(height, (width / ratio[0]).round().long().clamp(min=1))
    w = torch.where(found, w.gather(1, first), central_w)
    h = torch.where(found, h.gather(1, first), central_h)
    place = uniform(rows, generator, 0.0, 1.0, 2)
    free = torch.cat([height - h, width - w], dim=1)
    # float32 may round u (n + 1) up to n + 1, which would be one pixel too far.
    corner = torch.where(found, torch.minimum((place * (free + 1)).long(), free), free // 2)
    return torch.cat([corner, h, w], dim=1)


def central_boxes(sizes: Int[Tensor, "B 2"]) -> Int[Tensor, "B 4"]:
    """top, left, height, width of the largest square in the middle of each image."""
    side = sizes.amin(dim=1, keepdim=True)
    return torch.cat([(sizes - side) // 2, side, side], dim=1)


def resize_weights(
    start: Int[Tensor, " B"], length: Int[Tensor, " B"], source: int, target: int, reverse: Bool[Tensor, " B"] | None = None
) -> Float[Tensor, "B {target} {source}"]:
    """Matrices that take pixels start, ..., start + length - 1 of a line of `source` pixels to `target` pixels.

    The triangle filter of F.interpolate(mode="bilinear", antialias=True): as wide as one pixel of the finer of both grids, cut at the box's
    ends and normalised, so that each row sums to 1. `reverse` flips the result.
    """
    start, length = start[:, None].float(), length[:, None].float()
    scale = length / target  # pixels of the source in one of the target
    target_pixel = torch.arange(target, device=start.device).expand(len(start), target)
    if reverse is not None:
        target_pixel = torch.where(reverse[:, None], target - 1 - target_pixel, target_pixel)
    width = scale.clamp(min=1)
    centre = (start + (target_pixel + 0.5) * scale) / width
    pixel = torch.arange(source, device=start.device) + 0.5
    # An infinite place is infinitely far from every centre: weight 0.
    place = (pixel / width).masked_fill_((pixel < start) | (pixel > start + length), math.inf)
    negative = (place[:, None] - centre[:, :, None]).abs_().sub_(1).clamp_(max=0)  # (B, target, source); -max(0, 1 - distance)
    return negative.div_(negative.sum(dim=2, keepdim=True))  # the signs cancel


def crop(
    images: UInt8[Tensor, "B C H W"], boxes: Int[Tensor, "B 4"], side: int, flip: Bool[Tensor, " B"] | None = None, *, exact: bool = False
) -> Float[Tensor, "C B {side} {side}"]:
    """Each image's box resized to a square of `side` pixels and mirrored where `flip` says so; values in [0, 1], channels first of all.

    On CPU, large images are cut and resized one by one, because most of a matrix of `side` x H is zeros there; unless `exact`, by
    torch's uint8 kernel, which rounds to 1/255 as torchvision does for uint8 images and needs half the time.
    """
    height, width = images.shape[2:]
    if images.device.type == "cpu" and side * width * (height + side) > MATRIX_LIMIT:
        return _one_by_one(images, boxes, side, flip, exact)
    return _by_matrices(images, boxes, side, flip)


def _by_matrices(images: Tensor, boxes: Tensor, side: int, flip: Tensor | None) -> Tensor:
    height, width = images.shape[2:]
    top, left, h, w = boxes.unbind(dim=1)
    flip = torch.zeros_like(top, dtype=torch.bool) if flip is None else flip
    if height == width:  # rows and columns in one go: at 32 pixels, calls cost as much as arithmetic
        straight = torch.zeros_like(flip)
        both = resize_weights(torch.cat([top, left]), torch.cat([h, w]), height, side, torch.cat([straight, flip]))
        rows, columns = both.chunk(2)
    else:
        rows, columns = resize_weights(top, h, height, side), resize_weights(left, w, width, side, flip)
    rows, columns = rows.div_(255), columns.transpose(1, 2)
    planes = images.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    out = planes.new_empty(len(planes), len(images), side, side)
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has steps of 1/256 below 1
        for plane, view in zip(planes, out, strict=True):
            torch.bmm(torch.bmm(rows, plane), columns, out=view)
    return out.clamp_(max=1)  # weights sum to 1 only up to rounding


def _one_by_one(images: Tensor, boxes: Tensor, side: int, flip: Tensor | None, exact: bool) -> Tensor:
    out = torch.empty(images.shape[1], len(images), side, side)
    if exact or images.shape[1] > 4 or side == 1:  # torch's fast uint8 kernel is for up to 4 channels, and fails for a single pixel
        images = images.float()
    mirrored = [False] * len(images) if flip is None else flip.tolist()
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        box = images[i : i + 1, :, top : top + h, left : left + w]
        view = F.interpolate(box, size=(side, side), mode="bilinear", antialias=True)[0]
        out[:, i] = view.flip(-1) if mirrored[i] else view
    return out.div_(255).clamp_(max=1)
