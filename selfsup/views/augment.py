"""How one view of every image is drawn: its parameters, and the operations in their order.

Random resized crop, flip, jitter of brightness, contrast, saturation and hue in random order, grayscale, gaussian blur, solarize.
Every image draws its own parameters for each; all images go through the same few calls.

Axes: B images, C channels, S side of the view.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfsup.method import Batch
from selfsup.views import blur, colour, geometry
from selfsup.views.sampling import chance, integers, permutations, uniform

CHUNK = 2**18
"""Values (channels x pixels) of the views that a thread makes together on CPU, so that dozens of passes stay in its cache (measured)."""


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
    images, sizes = geometry.canvas(batch)
    choice = choose(sizes, images.shape[1], look, generator)
    # Images whose hue turns at the same place stand together, so that it is one call on a slice; each view then goes to its own row.
    order = choice.hue_at.argsort(stable=True)
    choice = Choice(*(x[order] for x in choice))
    ends = choice.hue_at.bincount(minlength=5).cumsum(0).tolist()
    out = torch.empty(len(images), images.shape[1], look.size, look.size, device=images.device)
    values = CHUNK * torch.get_num_threads() if images.device.type == "cpu" else out.numel()
    chunk = max(1, values // (images.shape[1] * look.size**2))
    for first in range(0, len(images), chunk):
        rows = slice(first, first + chunk)
        part = Choice(*(x[rows] for x in choice))
        planes = geometry.crop(images[order[rows]], part.box, look.size, part.flip)
        recolour(planes, part, [min(max(end - first, 0), len(part.hue)) for end in ends])
        out.index_copy_(0, order[rows], finish(planes, part).transpose(0, 1))
    return out


def recolour(planes: Float[Tensor, "C B S S"], choice: Choice, ends: list[int]) -> None:
    """Brightness, contrast, saturation and hue, in place; rows ends[i - 1] to ends[i] have hue as their operation number i."""
    if ends[3] == 0:
        return
    jittered = slice(0, ends[3])
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
        blurred = blur.gaussian_blur(planes.index_select(1, at), choice.sigma[at], blur.kernel_size(planes.shape[-1]))
        planes.index_copy_(1, at, blurred)
    if len(at := choice.solarize.nonzero()[:, 0]) > 0:
        planes.index_copy_(1, at, colour.solarize(planes.index_select(1, at)))
    return planes
