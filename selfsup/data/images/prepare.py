"""The two passes over a source: headers first, which fix the canvas and the channels, then pixels.

Runs in decoding processes, so it imports no torch.

Axes: N items, C channels, H and W of the canvas.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from selfsup.data.errors import BadDataError
from selfsup.data.images import decode
from selfsup.data.images.decode import FLOAT, SIXTEEN, Target
from selfsup.data.images.sources import Source
from selfsup.data.workers import Pool, available_cores

Progress = Callable[[str, int, int], None] | None
_FEW_ITEMS, _FEW_BYTES = 2000, 32_000_000  # below both, starting processes takes longer than decoding
_TASK_BYTES, _TASK_PIXELS, _TASK_ITEMS = 4_000_000, 16_000_000, 512
_RANGE_SAMPLE = 32  # items that the range of deep images is learned from


def pool_for(source: Source, workers: int | None) -> Pool:
    """Processes for a source, none where it is small or cannot be sent to another process."""
    small = len(source.listing.names) < _FEW_ITEMS and source.listing.nbytes < _FEW_BYTES
    count = (0 if small else min(16, available_cores())) if workers is None else workers
    return Pool(run_task, source, 0 if count < 2 or not source.portable else count)


def run_task(source: Source, kind: str, *args: Any) -> Any:
    """What a decoding process does."""
    return {"heads": _heads, "store": _store, "batch": batch}[kind](source, *args)


def _heads(source: Source, items: np.ndarray, max_pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    found, bad = np.zeros((len(items), 4), np.int32), {}
    for row, i in enumerate(items.tolist()):
        try:
            try:
                raw = source.read(i, head=True)
                found[row] = decode.head(raw, max_pixels)
            except Exception:  # a header may be longer than what was read of it, and a decoder raises anything on a part of a file
                raw = source.read(i)
                found[row] = decode.head(raw, max_pixels)
        except Exception as error:
            bad[i] = reason(error)
    return found, bad


def _store(
    source: Source, items: np.ndarray, row: int, place: tuple[Path, int] | None, target: Target, sizes: np.ndarray
) -> dict[int, str]:
    """Decode items into rows `row`, row + 1, ... of a file; with `place` None only see that they decode."""
    height, width = target.canvas
    out, bad = np.zeros((len(items), target.channels, height, width), np.uint8), {}
    for k, i in enumerate(items.tolist()):
        try:
            pixels = decode.pixels(source.read(i), target)
            if pixels.shape[1:] != tuple(sizes[k]):
                raise ValueError(f"its header promised {sizes[k].tolist()} pixels, it has {list(pixels.shape[1:])}")
            out[k, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        except Exception as error:  # a decoder raises anything on hostile bytes; the item is counted as bad
            bad[i] = reason(error)
    if place is not None:
        path, begin = place
        with path.open("r+b") as file:  # written, not mapped: a full disk is an error that way, and a killed process the other
            file.seek(begin + row * out[0].nbytes)
            file.write(out.data)
    return bad


def batch(source: Source, items: Int64[np.ndarray, "B"], target: Target) -> UInt8[np.ndarray, "B C H W"]:
    """Decode items -> (B, C, H, W) uint8.

    Raises:
        BadDataError: an item that was readable before is not any more.
    """
    out = np.zeros((len(items), target.channels, *target.canvas), np.uint8)
    for k, i in enumerate(items.tolist()):
        try:
            pixels = decode.pixels(source.read(i), target)
            out[k, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        except Exception as error:
            name = source.listing.names[i]
            raise BadDataError(
                f"{name} could be read when the data was opened and cannot now: {reason(error)}; was the data changed?"
            ) from error
    return out


def reason(error: Exception) -> str:
    """One line that names what was wrong, for the list of skipped files."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def inspect(source: Source, pool: Pool, max_pixels: int, progress: Progress = None) -> tuple[np.ndarray, dict[int, str]]:
    """Pass 1 -> heads (N, 4) int32 of height, width, channels and kind of values, height 0 where unreadable; and the reasons for those."""
    if source.heads is not None:
        return source.heads, getattr(source, "bad", {})
    heads, bad = np.zeros((len(source.listing.names), 4), np.int32), {}
    tasks = _parts(source, np.arange(len(heads)), _TASK_ITEMS)
    start = 0
    for found, reasons in pool.map(("heads", items, max_pixels) for items in tasks):
        heads[start : start + len(found)] = found
        start += len(found)
        bad.update(reasons)
        if progress is not None:
            progress("reading headers", start, len(heads))
    return heads, bad


def decode_all(
    source: Source,
    pool: Pool,
    items: np.ndarray,
    sizes: np.ndarray,
    target: Target,
    place: tuple[Path, int] | None,
    progress: Progress = None,
) -> dict[int, str]:
    """Pass 2: decode `items` into a file at `place`, or only check that they decode.

    Args:
        items: (M,) numbers of the items, ascending; row m of the file is items[m].
        sizes: (M, 2) height and width that each will fill.
        place: file and the byte where its rows begin.
    Returns:
        Reasons of those that do not decode; their rows are zero.
    """
    per_item = target.channels * target.canvas[0] * target.canvas[1]
    bad: dict[int, str] = {}

    def tasks() -> Iterator[tuple]:
        row = 0
        for part in _parts(source, items, max(1, _TASK_PIXELS // per_item)):
            yield "store", part, row, place, target, sizes[row : row + len(part)]
            row += len(part)

    done = 0
    lengths = (len(part) for part in _parts(source, items, max(1, _TASK_PIXELS // per_item)))
    for reasons, length in zip(pool.map(tasks()), lengths, strict=True):
        bad.update(reasons)
        done += length
        if progress is not None:
            progress("decoding", done, len(items))
    return bad


def _parts(source: Source, items: np.ndarray, at_most: int) -> Iterator[np.ndarray]:
    """Cut ascending items into tasks: some megabytes each, and never through a group that has to be read as one."""
    average = max(1, source.listing.nbytes // max(1, len(source.listing.names)))
    length = max(1, min(_TASK_ITEMS, at_most, _TASK_BYTES // average))
    start = 0
    while start < len(items):
        stop = min(start + length, len(items))
        if source.groups is not None:
            following = np.searchsorted(source.groups, items[stop - 1], "right")
            group_end = int(np.searchsorted(items, source.groups[following])) if following < len(source.groups) else len(items)
            stop = min(group_end, start + at_most)  # memory comes before unpacking a group once
        yield items[start:stop]
        start = stop


class Plan(NamedTuple):
    """What pass 1 decides: `image_size` and `target`, and the (M,) numbers and (M, 2) sizes of the readable items."""

    image_size: int
    target: Target
    items: np.ndarray
    sizes: np.ndarray


def plan(
    source: Source,
    heads: np.ndarray,
    image_size: int | None,
    largest: int,
    channels: int | None,
    max_pixels: int,
    value_range: Any,
    shrink: bool = True,
) -> Plan:
    """Decide on size, channels and range of values from all headers.

    Raises:
        ValueError: channels that the items do not have.
    """
    items = np.flatnonzero(heads[:, 0])
    height, width = heads[items, 0], heads[items, 1]
    if image_size is None:
        image_size = max(1, min(int(np.median(np.minimum(height, width))), largest))
    limit = math.ceil(1.5 * image_size)
    sizes = _fitted(height, width, limit) if shrink else np.minimum(heads[items, :2], limit)
    canvas = (int(sizes[:, 0].max()), int(sizes[:, 1].max()))
    ranges = [value_range or _range(source, heads, kind, max_pixels) for kind in (SIXTEEN, FLOAT)]
    target = Target(limit, _channels(heads[items, 2], channels), canvas, max_pixels, *ranges, shrink=shrink)
    return Plan(image_size, target, items, sizes)


def _fitted(height: np.ndarray, width: np.ndarray, limit: int) -> np.ndarray:
    """decode.fitted for all items at once -> (M, 2)."""
    shrink = np.minimum(1.0, limit / np.maximum(height, width))
    return np.maximum(1, np.rint(np.stack([height * shrink, width * shrink], axis=1))).astype(np.int32)


def _channels(found: np.ndarray, wanted: int | None) -> int:
    kinds, counts = np.unique(found, return_counts=True)
    if set(kinds) <= {1, 3}:
        if wanted not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3 for these images, got {wanted}")
        return wanted or int(kinds.max())
    if len(kinds) > 1:
        raise ValueError(
            "all items need the same number of channels; got " + ", ".join(f"{c} in {n} items" for c, n in zip(kinds, counts, strict=True))
        )
    if wanted not in (None, kinds[0]):
        raise ValueError(f"items have {kinds[0]} channels and cannot become {wanted}")
    return int(kinds[0])


def _range(source: Source, heads: np.ndarray, kind: int, max_pixels: int) -> tuple[float, float]:
    deep = np.flatnonzero((heads[:, 0] > 0) & (heads[:, 3] == kind))
    chosen = deep[np.unique(np.linspace(0, len(deep) - 1, _RANGE_SAMPLE).astype(int))] if len(deep) else deep
    values = [np.empty(0)]
    for i in chosen.tolist():
        try:
            values.append(decode.raw_values(source.read(i), max_pixels))
        except Exception:  # pass 2 will count it as bad, with its reason
            continue
    return decode.range_of(np.concatenate(values), kind)
