"""Pixels as data URIs: single small pictures, and one sprite with every thumbnail of the map."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

SPRITE_BYTES = 900_000
"""Largest sprite, as PNG; base64 adds a third, and the page shall stay under 3 MB."""

PICTURES_BYTES = 260_000
"""Largest sum of single pictures of one kind, as PNG."""

SIDES = (48, 40, 32, 28, 24, 20, 16, 12)
"""Sides of a thumbnail that are tried in turn, in pixels."""


def data_uris(images: Sequence[np.ndarray], most: int = PICTURES_BYTES) -> list[str]:
    """Pictures (h, w, 1 or 3) uint8 as PNG, all made as small as it takes to stay under so many bytes together."""
    encoded: list[str] = []
    for largest in (96, 72, *SIDES):
        encoded = [_encode(_fitted(_picture(image), largest)) for image in images]
        if sum(map(_bytes, encoded)) <= most:
            break
    return encoded


def sprite(thumbnails: np.ndarray) -> dict[str, Any]:
    """All thumbnails (M, h, w, 1 or 3) uint8 in one picture, as large as `SPRITE_BYTES` allows.

    Returns:
        `image`: data URI; `columns`; `side`: of one square tile in pixels. Thumbnail i is in row i // columns.
    """
    # Full colours first: a palette of 256 is a third of the bytes, and better than tiles too small to see.
    tries = [(min(SIDES[0], max(thumbnails.shape[1:3])), False)]
    tries += [(side, palette) for side in SIDES if side <= tries[0][0] for palette in (False, True) if side >= 28 or palette]
    part = thumbnails[:: max(1, len(thumbnails) // 200)]  # tells nearly what all of them would take, in a tenth of the time
    encoded, side = "", 0
    for side, palette in tries:
        last = (side, palette) == tries[-1]
        share = len(part) / len(thumbnails)
        if share < 1 and not last and _bytes(_reduced(part, side, palette)) / share > 1.2 * SPRITE_BYTES:
            continue
        encoded = _reduced(thumbnails, side, palette)
        if _bytes(encoded) <= SPRITE_BYTES:
            break
    return {"image": encoded, "columns": _columns(len(thumbnails)), "side": side}


def _fitted(picture: Image.Image, largest: int) -> Image.Image:
    if max(picture.size) < 32:  # whole multiples keep a small picture's pixels sharp, where a browser would blur them
        times = 64 // max(picture.size)
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    if max(picture.size) > largest:
        picture.thumbnail((largest, largest), Image.Resampling.BOX, reducing_gap=None)
    return picture


def _reduced(thumbnails: np.ndarray, side: int, palette: bool) -> str:
    sheet = _sheet(thumbnails, side)
    # The octree takes a fortieth of the median cut's time, for a mean error of 9 instead of 8 of 255 on photographs.
    return _encode(sheet.quantize(256, method=Image.Quantize.FASTOCTREE) if palette and sheet.mode == "RGB" else sheet)


def _bytes(encoded: str) -> float:
    return len(encoded) * 3 / 4


def _columns(tiles: int) -> int:
    return math.ceil(math.sqrt(tiles))


def _sheet(thumbnails: np.ndarray, side: int) -> Image.Image:
    columns = _columns(len(thumbnails))
    rows = math.ceil(len(thumbnails) / columns)
    sheet = Image.new("L" if thumbnails.shape[-1] == 1 else "RGB", (columns * side, rows * side))
    for i, thumbnail in enumerate(thumbnails):
        tile = _picture(thumbnail)
        scale = side / max(tile.size)
        width, height = (max(1, round(length * scale)) for length in tile.size)
        # Averages where pixels are lost, sharp blocks where they are enlarged: an 8 x 8 digit stays what it is.
        tile = tile.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
        sheet.paste(tile, (i % columns * side + (side - width) // 2, i // columns * side + (side - height) // 2))
    return sheet


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))


def _encode(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
