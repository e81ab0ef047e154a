"""A raw item -> uint8 pixels; imports no torch, for it runs in decoding processes.

A raw item is the bytes of an encoded file, a Pillow image, or an array (H, W, C). What becomes of each kind of pixel, all to 0..255:

    1              False -> 0, True -> 255
    L, RGB         as they are; a transparent colour (PNG tRNS) counts as transparency
    P, PA          looked up in the palette, with its transparency
    LA, RGBA       laid over mid-grey (128), the value that says least; never just stripped of their alpha
    CMYK, YCbCr    converted to RGB by Pillow, Adobe's inverted CMYK included
    I;16           by the smallest of 255, 4,095 (12-bit sensors) and 65,535 that the whole data set stays below
    I, F           by 1, 255 or 65,535 where the whole data set fills at least half of that, else by its 0.1 and 99.9 percentiles
    arrays         uint8 as they are, bool like 1, uint16 like I;16, all others like F

EXIF orientation is obeyed. Images are only ever made smaller, with antialiasing, aspect ratio kept.

Axes: C channels, H height, W width, N items.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import (  # noqa: F401 importing a plugin registers its format; Pillow's own search would load all of its plugins
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from selfsup.data.files.listing import looks_like_image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
PLAIN, SIXTEEN, FLOAT = 0, 1, 2
"""Kinds of values: already 0..255; unsigned 16 bits; everything that has no natural limits."""

_MID_GREY = 128
_KNOWN_MODES = frozenset(["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F"])
_GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "F"])
_ORIENTATION = 274  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Raw = bytes | np.ndarray | Image.Image


@dataclass(frozen=True)
class Target:
    """What every item of a data set is turned into.

    Attributes:
        limit: longest side, in pixels.
        channels: of the result; 1 and 3 convert into each other, other numbers must be met.
        canvas: (H, W) that holds every item.
        max_pixels: larger images are refused before decoding.
        range16: (low, high) that become 0 and 255 where values are unsigned 16-bit.
        range_float: the same where they have no natural limits.
        shrink: whether a longer side is shrunk to `limit`; otherwise each side is cut to it, evenly at both ends, and no pixel changes.
    """

    limit: int
    channels: int
    canvas: tuple[int, int]
    max_pixels: int
    range16: tuple[float, float] = (0.0, 65535.0)
    range_float: tuple[float, float] = (0.0, 1.0)
    shrink: bool = True


def head(raw: Raw, max_pixels: int) -> tuple[int, int, int, int]:
    """(height, width, channels, kind of values) once decoded and upright, from the header alone.

    Raises:
        Exception: whatever a decoder raises on bytes that it cannot read; ValueError for an image above `max_pixels`.
    """
    if isinstance(raw, np.ndarray):
        height, width, channels = raw.shape
        return height, width, channels, kind_of(raw.dtype)
    with _quiet():
        image = _open(raw, max_pixels)
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
        kind = SIXTEEN if image.mode.startswith("I;16") else FLOAT if image.mode in ("I", "F") else PLAIN
        return height, width, 1 if grey else 3, kind


def kind_of(dtype: np.dtype) -> int:
    """Kind of values of an array."""
    return PLAIN if dtype in (np.uint8, np.bool_) else SIXTEEN if dtype == np.uint16 else FLOAT


def fitted(height: int, width: int, limit: int) -> tuple[int, int]:
    """Height and width, shrunk until the longer one is at most `limit`; never enlarged, at least 1."""
    shrink = min(1.0, limit / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def pixels(raw: Raw, target: Target) -> UInt8[np.ndarray, "C h w"]:
    """Decode and shrink one item -> (C, h, w) uint8, h and w within the canvas.

    Raises:
        Exception: whatever a decoder raises on bytes that it cannot read; ValueError for what we refuse.
    """
    if isinstance(raw, np.ndarray):
        return _array_pixels(raw, target)
    with _quiet():
        image = _open(raw, target.max_pixels)
        orientation = _orientation(image)
        if not target.shrink and max(image.size) > target.limit:
            image = image.crop(_middle(image.height, image.width, target.limit))
        height, width = fitted(image.height, image.width, target.limit)
        if image.size != (width, height) and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (2 * width, 2 * height))  # type: ignore[arg-type] decodes at 1/2, 1/4 or 1/8, still twice what is needed
        image.load()
        image = _eight_bits(image, target)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        if orientation in _TRANSPOSE:
            image = image.transpose(_TRANSPOSE[orientation])
        if image.mode == "F":
            image = Image.fromarray(_round(np.asarray(image)))
        mode = "L" if target.channels == 1 else "RGB"
        out = np.asarray(image if image.mode == mode else image.convert(mode))
    return out[None] if out.ndim == 2 else out.transpose(2, 0, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of decompression bombs and decodes on: that is an error here. Its remarks on odd metadata are of no use to anyone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(raw: bytes | Image.Image, max_pixels: int) -> Image.Image:
    if isinstance(raw, bytes):
        if not raw:
            raise ValueError("empty file")
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = max_pixels  # the user asked for larger images than Pillow allows by itself
        try:
            image: Image.Image = Image.open(BytesIO(raw), formats=FORMATS)
        except Image.UnidentifiedImageError:
            if looks_like_image(raw[:16]):
                raise ValueError("damaged or cut short: it begins like an image, but its header cannot be read") from None
            raise ValueError(f"not an image in a format that is read ({', '.join(FORMATS)}); it begins with {raw[:8]!r}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"more pixels than max_pixels = {max_pixels:,}: {error}") from None
    else:
        image = raw
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width} x {image.height} pixels are more than max_pixels = {max_pixels:,}")
    if not (image.mode in _KNOWN_MODES or image.mode.startswith("I;16")):
        raise ValueError(f"colour mode {image.mode} is not supported")
    return image


def _orientation(image: Image.Image) -> int:
    """1 to 8. From what was read with the header only: asking Pillow for a PNG's EXIF may decode the whole image."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs upright itself
    data = image.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose an image, and Pillow's parser raises many kinds of errors
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bits(image: Image.Image, target: Target) -> Image.Image:
    """Any mode -> L or RGB, or F with values 0..255 where there were more than eight bits, so that shrinking comes before rounding."""
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image).astype(np.float32)
        scaled = _scale(values, target.range16 if mode.startswith("I;16") else target.range_float)
        if isinstance(key := image.info.get("transparency"), int):
            scaled[values == key] = _MID_GREY
        return Image.fromarray(scaled)
    if "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        grey = mode in ("1", "L", "LA", "La")
        image = image.convert("RGBA") if mode != "La" else image.convert("LA").convert("RGBA")
        flat = Image.new("RGB", image.size, (_MID_GREY,) * 3)
        flat.paste(image, mask=image.getchannel("A"))
        return flat.getchannel("R") if grey else flat
    if mode == "1":
        return image.convert("L")
    return image if mode in ("L", "RGB") else image.convert("RGB")


def _middle(height: int, width: int, limit: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of what is left where no side may exceed `limit`."""
    h, w = min(height, limit), min(width, limit)
    top, left = (height - h) // 2, (width - w) // 2
    return left, top, left + w, top + h


def _array_pixels(raw: np.ndarray, target: Target) -> np.ndarray:
    if not target.shrink:
        left, top, right, bottom = _middle(raw.shape[0], raw.shape[1], target.limit)
        raw = raw[top:bottom, left:right]
    height, width = fitted(raw.shape[0], raw.shape[1], target.limit)
    values = eight_bit_values(raw, target)  # (H, W, C) float or uint8
    if (height, width) != raw.shape[:2]:
        bands = [Image.fromarray(np.ascontiguousarray(values[..., c], np.float32)) for c in range(raw.shape[2])]
        bands = [np.asarray(band.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)) for band in bands]
        values = np.stack(bands, axis=-1)
    return with_channels(_round(values), target.channels).transpose(2, 0, 1)


def eight_bit_values(raw: np.ndarray, target: Target) -> np.ndarray:
    """Values (...) of any type -> (...) uint8 as they are, or float32 within 0..255, not yet rounded."""
    if raw.dtype == np.uint8:
        return raw
    if raw.dtype == np.bool_:
        return raw.astype(np.uint8) * 255
    return _scale(raw.astype(np.float32), target.range16 if raw.dtype == np.uint16 else target.range_float)


def to_uint8(raw: np.ndarray, target: Target) -> np.ndarray:
    """Values (..., C) of any type -> (..., target.channels) uint8."""
    return with_channels(_round(eight_bit_values(raw, target)), target.channels)


def with_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """(..., C) uint8 -> (..., channels): grey repeated, or colour to its luminance (ITU-R 601)."""
    have = values.shape[-1]
    if have == channels:
        return values
    if have == 1:
        return np.repeat(values, channels, axis=-1)
    if (have, channels) == (3, 1):
        return _round(values @ np.array([[0.299], [0.587], [0.114]], np.float32))
    raise ValueError(f"an item has {have} channels, the data set {channels}")


def _scale(values: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    low, high = between
    if not np.isfinite(values).all():
        raise ValueError("values are not finite (NaN or infinity)")
    return np.clip((values - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)


def _round(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def raw_values(raw: Raw, max_pixels: int, count: int = 4096) -> np.ndarray:
    """At most `count` finite values spread over one deep item, as float64, to learn the range of a data set from."""
    if not isinstance(raw, np.ndarray):
        with _quiet():
            raw = np.asarray(_open(raw, max_pixels))
    flat = raw.reshape(-1)
    flat = flat[:: max(1, flat.size // count)].astype(np.float64)
    return flat[np.isfinite(flat)]


def range_of(values: np.ndarray, kind: int) -> tuple[float, float]:
    """(low, high) that become 0 and 255, from a sample of a data set's values; see the table above."""
    if not values.size:
        return (0.0, 65535.0) if kind == SIXTEEN else (0.0, 1.0)
    top = float(values.max())
    if kind == SIXTEEN:
        return 0.0, next(full for full in (255.0, 4095.0, 65535.0) if top <= full)
    for full in (1.0, 255.0, 65535.0):  # the same limits for every part of a data set, which percentiles cannot promise
        if values.min() >= 0 and full / 2 <= top <= full:
            return 0.0, full
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)
