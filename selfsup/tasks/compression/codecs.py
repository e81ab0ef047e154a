"""JPEG and WebP, as Pillow has them, for a set of images: how many bytes, and how good; to put beside `selfsup compress`.

Both are taken at their best without changing what they are: JPEG with its colours at half resolution as is usual, WebP with its slowest
search. An image of 32 x 32 pixels is smaller than a JPEG's header, so two sizes are given: `files`, the files as they lie on disk, and
`shared`, where what stands before the image's own data is counted once for the whole set, as if all files had it in common. JPEG's tables
are made for each image under `files`, and are the standard's under `shared`.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Codec = Literal["jpeg", "webp"]
Counted = Literal["files", "shared"]

QUALITIES = {"jpeg": (1, 95), "webp": (0, 100)}
"""Least and largest setting: above 95 a JPEG grows without looking better."""

WEBP_HEADER = 30
"""RIFF and VP8 chunk headers of 20 bytes, frame header of 10."""

LEAST_ERROR = 1e-4
"""Of a mean squared error: an image that comes back as it was counts as 88 dB."""


@dataclass(frozen=True)
class Point:
    """What a codec makes of a set of images at one setting.

    Attributes:
        quality: the setting.
        bytes: of the whole set.
        psnr: mean over the images, in dB.
    """

    quality: int
    bytes: int
    psnr: float


def psnr(image: UInt8[np.ndarray, "H W C"], other: UInt8[np.ndarray, "H W C"]) -> float:
    """Peak signal to noise ratio of two images, in dB: 10 log10(255^2 / mean squared error)."""
    error = float(((image.astype(np.float64) - other) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, LEAST_ERROR)))


def measure(images: Sequence[UInt8[np.ndarray, "_ _ _"]], codec: Codec, quality: int, counted: Counted) -> Point:
    """Bytes and quality of images (H, W, 1 or 3) at a setting."""
    files = [_encoded(image, codec, quality, counted) for image in images]
    gray = images[0].shape[2] == 1
    back = [
        np.asarray(Image.open(io.BytesIO(file)).convert("L" if gray else "RGB")).reshape(image.shape)
        for file, image in zip(files, images, strict=True)
    ]
    return Point(quality, _bytes(files, codec, counted), float(np.mean([psnr(a, b) for a, b in zip(images, back, strict=True)])))


def at_size(images: Sequence[UInt8[np.ndarray, "_ _ _"]], codec: Codec, budget: float, counted: Counted) -> Point:
    """The best setting, the same for all images, whose bytes are at most `budget`; the smallest setting where none is.

    Found by halving, as bytes grow with the setting; those of a few small images may not at every step, and then it is one of the best.
    """
    low, high = QUALITIES[codec]
    while low < high:
        middle = (low + high + 1) // 2
        files = [_encoded(image, codec, middle, counted) for image in images]
        low, high = (middle, high) if _bytes(files, codec, counted) <= budget else (low, middle - 1)
    return measure(images, codec, low, counted)


def _encoded(image: np.ndarray, codec: Codec, quality: int, counted: Counted) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if codec == "jpeg":
        picture.save(buffer, "JPEG", quality=quality, optimize=counted == "files")
    else:
        picture.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


def _bytes(files: Sequence[bytes], codec: Codec, counted: Counted) -> int:
    if counted == "files":
        return sum(map(len, files))
    headers = [_jpeg_header(file) if codec == "jpeg" else WEBP_HEADER for file in files]
    return sum(map(len, files)) - sum(headers) + max(headers)


def _jpeg_header(file: bytes) -> int:
    """Bytes before the coded data, and the two that end a file."""
    at = 2
    while file[at + 1] != 0xDA:  # segments up to "start of scan", each with its length
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") + 2
