"""Views of images: the clean one, and random crops with random colours, as SimCLR, MoCo, BYOL, SwAV and DINO draw them.

A view is made in this order: random resized crop, flip, jitter of brightness, contrast, saturation and hue in random order, grayscale,
gaussian blur, solarize. Every image draws its own parameters for each. Raw uint8 images come in, float32 images in [0, 1] go out.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfsup.method import Batch
from selfsup.views import blur, colour, geometry
from selfsup.views.sampling import chance, integers, permutations, uniform


def sizes_of(batch: Batch) -> Int[Tensor, "B 2"]:
    """Height and width of each image; those of the canvas where the batch does not say."""
    images = batch["image"]
    if "size" in batch:
        return batch["size"]
    return torch.tensor(images.shape[2:], device=images.device).expand(len(images), 2)


def clean(batch: Batch, image_size: int) -> Float[Tensor, "B *rest"]:
    """What an encoder sees after training: the central square, resized with antialiasing to (B, C, image_size, image_size) in [0, 1].

    Vectors are returned as they are.
    """
    if "vector" in batch:
        return batch["vector"]
    images = batch["image"]
    _, _, height, width = images.shape
    if "size" not in batch:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[:, :, top : top + side, left : left + side].float().div_(255)
        if side == image_size:
            return images
        return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
    out = images.new_empty(*images.shape[:2], image_size, image_size, dtype=torch.float32)
    boxes = geometry.central_boxes(batch["size"])
    straight = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for rows in torch.arange(len(images), device=images.device).split(64):
        planes = geometry.crop(images[rows], boxes[rows], image_size, straight[rows])
        out[rows] = planes.transpose(0, 1)
    return out


CHUNK = 2**17


@dataclass(frozen=True)
class Look:
    """How one view is drawn.

    Args:
        size: side of the view in pixels.
        scale: smallest and largest area of the crop, as fractions of the image.
        ratio: smallest and largest width / height of the crop.
        flip: probability of a mirrored view.
        jitter: probability that the colours change.
        colours: strengths of brightness, contrast, saturation (factors in [max(0, 1 - x), 1 + x]) and hue (turns in [-x, x], x <= 0.5).
        gray: probability of a view without colour.
        blur: probability of gaussian blur.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize: probability that values of at least 0.5 are inverted.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    colours: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    gray: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a view's side must be at least 1 pixel, got {self.size}")
        for name in ("flip", "jitter", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability and must be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two fractions of the image's area, 0 < smallest <= largest <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two values of width / height, 0 < smallest <= largest, got {self.ratio}")
        if min(self.colours) < 0 or self.colours[3] > 0.5:
            raise ValueError(f"colours must be at least 0, and hue at most 0.5 turns, got {self.colours}")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma must be two lengths in pixels, 0 < smallest <= largest, got {self.sigma}")


class Choice(NamedTuple):
    """What was drawn for each image of a view, B rows each; the names are those of `Look`."""

    box: Int[Tensor, "B 4"]  # top, left, height, width
    flip: Bool[Tensor, " B"]
    hue_at: Int[Tensor, " B"]  # place of hue among the four operations of the jitter, 0 to 3; 4: no jitter
    hue: Float[Tensor, " B"]
    factor: Float[Tensor, "B 3"]  # of the other three operations, in this image's order: the arguments of colour.blend
    to_mean: Float[Tensor, "B 3"]
    to_gray: Float[Tensor, "B 3"]
    gray: Bool[Tensor, " B"]
    blur: Bool[Tensor, " B"]
    sigma: Float[Tensor, " B"]
    solarize: Bool[Tensor, " B"]


def choose(sizes: Int[Tensor, "B 2"], channels: int, look: Look, generator: torch.Generator) -> Choice:
    """Draw every parameter of a view for each image."""
    rows = len(sizes)
    box = geometry.random_boxes(sizes, generator, look.scale, look.ratio)
    flip = chance(rows, generator, look.flip)
    jitter = chance(rows, generator, look.jitter)
    # The place of hue and the order of the other three are independent, and all 24 orders of four are equally likely.
    hue_at = torch.where(jitter, integers(rows, generator, 4), 4)
    *strengths, turn = look.colours if channels == 3 else (*look.colours[:2], 0.0, 0.0)
    hue = uniform(rows, generator, -turn, turn)
    factors = torch.stack([uniform(rows, generator, max(0.0, 1 - x), 1 + x) for x in strengths], dim=1)
    order = permutations(rows, generator, 3)  # 0 brightness, 1 contrast, 2 saturation
    factor = factors.gather(1, order)
    return Choice(
        box,
        flip,
        hue_at,
        hue,
        factor,
        to_mean=(1 - factor) * (order == 1),
        to_gray=(1 - factor) * (order == 2),
        gray=chance(rows, generator, look.gray),
        blur=chance(rows, generator, look.blur),
        sigma=uniform(rows, generator, *look.sigma),
        solarize=chance(rows, generator, look.solarize),
    )


def draw(batch: Batch, look: Look, generator: torch.Generator) -> Float[Tensor, "B C S S"]:
    """One view of each image, S = look.size."""
    images = batch["image"]
    choice = choose(sizes_of(batch), images.shape[1], look, generator)
    # Images whose hue turns at the same place stand together, so that it is one call on a slice; the views are put back in order at the end.
    order = choice.hue_at.argsort(stable=True)
    choice = Choice(*(x[order] for x in choice))
    starts = choice.hue_at.bincount(minlength=5).cumsum(0).tolist()
    out = torch.empty(len(images), images.shape[1], look.size, look.size, device=images.device)
    chunk = max(1, CHUNK // (images.shape[1] * look.size**2)) if images.device.type == "cpu" else len(images)
    for first in range(0, len(images), chunk):
        rows = slice(first, first + chunk)
        part = Choice(*(x[rows] for x in choice))
        planes = geometry.crop(images[order[rows]], part.box, look.size, part.flip)
        recolour(planes, part, [min(max(end - first, 0), len(part.hue)) for end in starts])
        out[rows] = finish(planes, part).transpose(0, 1)
    return out.index_select(0, order.argsort())


def recolour(planes: Float[Tensor, "C B S S"], choice: Choice, ends: list[int]) -> None:
    """Brightness, contrast, saturation and hue, in place; rows ends[i - 1] to ends[i] have hue as their operation number i."""
    jittered = slice(0, ends[3])
    if ends[3] == 0:
        return
    for step, (start, end) in enumerate(pairwise([0, *ends[:4]])):
        if start < end and len(planes) == 3:
            colour.shift_hue(planes[:, start:end], choice.hue[start:end])
        if step < 3:
            factor, to_mean, to_gray = (x[jittered, step] for x in (choice.factor, choice.to_mean, choice.to_gray))
            colour.blend(planes[:, jittered], factor, to_mean, to_gray)


def finish(planes: Float[Tensor, "C B S S"], choice: Choice) -> Float[Tensor, "C B S S"]:
    """Grayscale, blur and solarize, each for the images that it was drawn for."""
    if len(planes) == 3 and len(at := choice.gray.nonzero()[:, 0]) > 0:
        planes.index_copy_(1, at, colour.gray(planes.index_select(1, at)).expand(3, -1, -1, -1))
    if len(at := choice.blur.nonzero()[:, 0]) > 0:
        planes.index_copy_(1, at, blur.gaussian_blur(planes.index_select(1, at), choice.sigma[at], blur.kernel_size(planes.shape[-1])))
    if len(at := choice.solarize.nonzero()[:, 0]) > 0:
        planes.index_copy_(1, at, colour.solarize(planes.index_select(1, at)))
    return planes


def _kept(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("label", "index") if name in batch}


class TwoCrops:
    """Two views of every image, "first" and "second", of (B, C, image_size, image_size) float32 in [0, 1]; keeps "label" and "index".

    The defaults are those of SimCLR (2002.05709, appendix A). MoCo v2 (2003.04297): scale (0.2, 1.0), colours (0.4, 0.4, 0.4, 0.1).
    BYOL (2006.07733): colours (0.4, 0.4, 0.2, 0.1), blur (1.0, 0.1), solarize (0.0, 0.2).

    Args:
        image_size: side of a view in pixels.
        colour_strength: s of SimCLR's appendix A, multiplies `colours`; 1.0 for ImageNet, 0.5 for CIFAR-10.
        scale: smallest and largest area of a crop, as fractions of the image.
        ratio: smallest and largest width / height of a crop.
        flip, jitter, gray: probabilities of a mirrored view, of changed colours, of no colour.
        colours: strengths of brightness, contrast, saturation and hue.
        blur: probability of gaussian blur, of both views or of (first, second); None: 0.5, and 0 up to 32 pixels, as the paper does.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize: probability of inverted bright pixels, of both views or of (first, second).
    """

    def __init__(
        self,
        image_size: int,
        colour_strength: float = 1.0,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.8,
        colours: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
        gray: float = 0.2,
        blur: float | tuple[float, float] | None = None,
        sigma: tuple[float, float] = (0.1, 2.0),
        solarize: float | tuple[float, float] = 0.0,
    ) -> None:
        if blur is None:
            blur = 0.5 if image_size > 32 else 0.0
        blurs = blur if isinstance(blur, tuple) else (blur, blur)
        solarizes = solarize if isinstance(solarize, tuple) else (solarize, solarize)
        b, c, s, h = (colour_strength * x for x in colours)
        self.first, self.second = (
            Look(image_size, scale, ratio, flip, jitter, (b, c, s, h), gray, p_blur, sigma, p_solarize)
            for p_blur, p_solarize in zip(blurs, solarizes, strict=True)
        )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        first = draw(batch, self.first, generator)
        return {"first": first, "second": draw(batch, self.second, generator), **_kept(batch)}


class MultiCrop:
    """A few large views of every image and many small ones: "global_0", "global_1", "local_0", ...; keeps "label" and "index".

    The defaults are those of DINO (2104.14294): two global views, of which the first is always blurred and the second seldom, but may be
    solarized. SwAV (2006.09882): global_scale (0.14, 1.0), local_scale (0.05, 0.14), colours (0.8, 0.8, 0.8, 0.2), blur 0.5 for all.

    Args:
        global_size, local_size: sides of the views in pixels.
        locals_: number of local views.
        global_scale, local_scale: smallest and largest area of a crop, as fractions of the image.
        ratio: smallest and largest width / height of a crop.
        flip, jitter, gray: probabilities, of all views.
        colours: strengths of brightness, contrast, saturation and hue.
        blur: probability of gaussian blur of the first global, the second global and the local views.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize: probability of inverted bright pixels, in the same order.
    """

    def __init__(
        self,
        global_size: int,
        local_size: int,
        locals_: int = 6,
        *,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.4),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.8,
        colours: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        gray: float = 0.2,
        blur: tuple[float, float, float] = (1.0, 0.1, 0.5),
        sigma: tuple[float, float] = (0.1, 2.0),
        solarize: tuple[float, float, float] = (0.0, 0.2, 0.0),
    ) -> None:
        if locals_ < 0:
            raise ValueError(f"the number of local views must be at least 0, got {locals_}")

        def look(size: int, scale: tuple[float, float], which: int) -> Look:
            return Look(size, scale, ratio, flip, jitter, colours, gray, blur[which], sigma, solarize[which])

        self.looks = {f"global_{i}": look(global_size, global_scale, i) for i in range(2)}
        self.looks |= {f"local_{i}": look(local_size, local_scale, 2) for i in range(locals_)}

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {name: draw(batch, look, generator) for name, look in self.looks.items()} | _kept(batch)


class RandomCrop:
    """One view of every image, "image": a random resized crop and a flip, colours untouched; keeps "label" and "index".

    For supervised training and monitors.

    Args:
        image_size: side of the view in pixels.
        scale: smallest and largest area of the crop, as fractions of the image.
        flip: probability of a mirrored view.
    """

    def __init__(self, image_size: int, *, scale: tuple[float, float] = (0.3, 1.0), flip: float = 0.5) -> None:
        self.look = Look(image_size, scale=scale, flip=flip)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {"image": draw(batch, self.look, generator), **_kept(batch)}
