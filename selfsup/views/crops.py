"""Views of images: the clean one, and random crops with random colours, as SimCLR, MoCo, BYOL, SwAV and DINO draw them.

Raw uint8 images come in, with what they fill of their canvas; float32 images in [0, 1] go out, on the same device.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from selfsup.method import Batch
from selfsup.views import geometry
from selfsup.views.augment import Look, draw

PART = 64
"""Images that `clean` takes at a time: their canvases become floats."""


def clean(batch: Batch, image_size: int) -> Shaped[Tensor, "B *rest"]:
    """What an encoder sees after training: the central square, resized with antialiasing to (B, C, image_size, image_size) in [0, 1].

    Vectors, and rows of token numbers, are returned as they are.
    """
    if "vector" in batch:
        return batch["vector"]
    if "text" in batch:
        return batch["text"]
    images, sizes = geometry.canvas(batch)
    if "size" in batch:
        boxes = geometry.central_boxes(sizes)
        parts = [geometry.crop(x, box, image_size, exact=True) for x, box in zip(images.split(PART), boxes.split(PART), strict=True)]
        return torch.cat(parts, dim=1).transpose(0, 1).contiguous()
    _, _, height, width = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, :, top : top + side, left : left + side].float().div_(255)
    if side == image_size:
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def _kept(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("label", "index") if name in batch}


FURTHER = ("third", "fourth", "fifth", "sixth", "seventh", "eighth")


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
        further: views beyond the two, drawn like the second: "third" and so on, up to "eighth".
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
        further: int = 0,
    ) -> None:
        if not 0 <= further <= len(FURTHER):
            raise ValueError(f"views beyond the two must be 0 to {len(FURTHER)}, got {further}")
        if blur is None:
            blur = 0.5 if image_size > 32 else 0.0
        blurs = blur if isinstance(blur, tuple) else (blur, blur)
        solarizes = solarize if isinstance(solarize, tuple) else (solarize, solarize)
        b, c, s, h = (colour_strength * x for x in colours)
        self.first, self.second = (
            Look(image_size, scale, ratio, flip, jitter, (b, c, s, h), gray, p_blur, sigma, p_solarize)
            for p_blur, p_solarize in zip(blurs, solarizes, strict=True)
        )
        self.looks = {"first": self.first, "second": self.second} | dict.fromkeys(FURTHER[:further], self.second)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw all views of each image, independently."""
        return {name: draw(batch, look, generator) for name, look in self.looks.items()} | _kept(batch)


class MultiCrop:
    """A few large views of every image and many small ones: "global_0", "global_1", "local_0", ...; keeps "label" and "index".

    The defaults are those of DINO (2104.14294): two global views, of which the first is always blurred and the second seldom, but may be
    solarized. SwAV (2006.09882): global_scale (0.14, 1.0), local_scale (0.05, 0.14), colours (0.8, 0.8, 0.8, 0.2), blur 0.5 and
    solarize 0.0 for all.

    Args:
        global_size, local_size: sides of the views in pixels; 224 and 96 in both papers.
        locals_: number of local views.
        colour_strength: multiplies `colours`; 1.0 for ImageNet, 0.5 for CIFAR-10.
        global_scale, local_scale: smallest and largest area of a crop, as fractions of the image.
        ratio: smallest and largest width / height of a crop.
        flip, jitter, gray: probabilities, of all views.
        colours: strengths of brightness, contrast, saturation and hue.
        blur: probability of gaussian blur of the first global, the second global and the local views; None: DINO's 1.0, 0.1 and 0.5, and
            0 up to a global size of 32 pixels.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize: probability of inverted bright pixels, in the same order.
    """

    def __init__(
        self,
        global_size: int,
        local_size: int,
        locals_: int = 6,
        *,
        colour_strength: float = 1.0,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.4),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.8,
        colours: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        gray: float = 0.2,
        blur: tuple[float, float, float] | None = None,
        sigma: tuple[float, float] = (0.1, 2.0),
        solarize: tuple[float, float, float] = (0.0, 0.2, 0.0),
    ) -> None:
        if locals_ < 0:
            raise ValueError(f"the number of local views must be at least 0, got {locals_}")
        if blur is None:
            blur = (1.0, 0.1, 0.5) if global_size > 32 else (0.0, 0.0, 0.0)
        b, c, s, h = (colour_strength * x for x in colours)

        def look(size: int, scale: tuple[float, float], which: int) -> Look:
            return Look(size, scale, ratio, flip, jitter, (b, c, s, h), gray, blur[which], sigma, solarize[which])

        self.looks = {f"global_{i}": look(global_size, global_scale, i) for i in range(2)}
        self.looks |= {f"local_{i}": look(local_size, local_scale, 2) for i in range(locals_)}

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw all views of each image, independently."""
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
        """Draw the view of each image."""
        return {"image": draw(batch, self.look, generator), **_kept(batch)}
