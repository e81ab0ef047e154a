"""open_data: from whatever the user points at to `Items`."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.cache import cache_root, entry
from selfsup.data.errors import BadDataError, Skipped
from selfsup.data.images.arrays import ArraySource
from selfsup.data.images.decode import FLOAT, PLAIN
from selfsup.data.images.prepare import Plan, Progress, decode_all, inspect, plan, pool_for
from selfsup.data.images.sources import Source, open_source
from selfsup.data.items import ArrayStore, Items, MappedStore, Store, StreamedStore, TableStore, VectorStore
from selfsup.data.tables.columns import TableSource
from selfsup.data.tables.schema import Schema
from selfsup.data.workers import Pool

_VERSION = 1  # of what is cached; to be raised with every change of what a pixel becomes


def open_data(
    data: Any,
    *,
    image_size: int | None = None,
    largest: int = 64,
    channels: int | None = None,
    cache: bool = True,
    cache_dir: Path | None = None,
    max_bad: float = 0.01,
    max_pixels: int = 64_000_000,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    value_range: tuple[float, float] | None = None,
    shrink: bool = True,
    table: Schema | None = None,
) -> Items:
    """Open images or vectors: list them, read all headers, decode each image once into a memory-mapped cache.

    Args:
        data: a folder, archive (or folder in it: "photos.zip/train"), .npy, .npz, .parquet, .csv or .tsv (perhaps .gz), list of paths,
            array (N, H, W, C), (N, H, W) or (N, D), tensor (N, C, H, W), or a map-style torch Dataset. Of tables, "table.csv?label=COLUMN"
            names the column of the classes; see `selfsup.data.tables.columns`.
        image_size: side of the square that training will use, in pixels; None for the median of the shorter sides, at most `largest`.
            Images are kept with a longer side of up to 1.5 times that, and never enlarged; see also `shrink`.
        largest: limit of an `image_size` that is not given.
        channels: 1 or 3; None for 1 where every image is grey, else 3. Arrays may have any number.
        cache: keep decoded images on disk; False decodes them for every batch, after checking each once.
        cache_dir: None for $SELFSUP_CACHE_DIR, $XDG_CACHE_HOME/selfsup or ~/.cache/selfsup.
        max_bad: fraction of images, 0 to 1, that may be unreadable.
        max_pixels: an image with more is refused before it is decoded.
        workers: decoding processes; None for one per core where there is enough to do.
        progress: called with (what, done, total).
        value_range: (low, high) that become 0 and 255 where values have more than 8 bits; None to learn it from the data.
        shrink: larger images are shrunk; otherwise their middle is kept as it is, pixel by pixel.
        table: what the columns of a table must be, as `Items.table` of another; None to learn it from the data.
    Raises:
        BadDataError: nothing readable, more bad images than `max_bad`, or a damaged archive.
        ValueError: data of a kind that is not understood, arguments out of range.
        OSError: no space for the cache.
    """
    _check(image_size=image_size, largest=largest, channels=channels, max_bad=max_bad, max_pixels=max_pixels, workers=workers)
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}")
    source = open_source(data, max_pixels=max_pixels, progress=progress, schema=table)
    if isinstance(source, TableSource):
        return _table(source, max_bad)
    root = cache_root(cache_dir) if cache else None
    if isinstance(source, ArraySource) and source.array.ndim == 2:
        return _vectors(source, max_bad)
    if root is None and not source.seekable:
        raise ValueError(
            f"{source.listing.origin} can only be read from its beginning, so it cannot be streamed: drop --no-cache (cache=True), "
            "or make it a .zip"
        )
    if not len(source.listing.names):
        _limit_bad(source, {}, max_bad)
    with pool_for(source, workers) as pool:
        heads, bad = _inspect(source, pool, root, max_pixels, progress)
        _limit_bad(source, bad, max_bad)
        planned = plan(source, heads, image_size, largest, channels, max_pixels, value_range, shrink)
        store, worse = _store(source, pool, planned, root, progress)
    bad = bad | worse
    _limit_bad(source, bad, max_bad)
    return _items(source, heads, planned, store, bad)


def _check(**values: Any) -> None:
    for name, value in values.items():
        if name == "max_bad":
            if not 0 <= value <= 1:
                raise ValueError(f"max_bad is a fraction, 0 to 1, got {value}")
        elif value is not None and value < (0 if name == "workers" else 1):
            raise ValueError(f"{name} must be {'0' if name == 'workers' else '1'} or more, got {value}")


def _inspect(source: Source, pool: Pool, root: Path | None, max_pixels: int, progress: Progress) -> tuple[np.ndarray, dict[int, str]]:
    """Pass 1, remembered in the cache unless its result comes with the source."""
    if root is None or source.heads is not None:
        return inspect(source, pool, max_pixels, progress)

    def build(folder: Path) -> None:
        heads, bad = inspect(source, pool, max_pixels, progress)
        np.save(folder / "heads.npy", heads)
        (folder / "bad.json").write_text(json.dumps(list(bad.items())))

    folder = entry(root, f"{source.listing.fingerprint}-heads-p{max_pixels}-v{_VERSION}", build)
    return np.load(folder / "heads.npy"), dict(json.loads((folder / "bad.json").read_text()))


def _store(source: Source, pool: Pool, planned: Plan, root: Path | None, progress: Progress) -> tuple[Store, dict[int, str]]:
    """Pass 2 -> where the pixels of planned.items are, and the reasons of those that do not decode."""
    target = planned.target
    if isinstance(source, ArraySource) and max(source.array.shape[1:3]) <= target.limit:
        return ArrayStore(source, target), {}
    decode = partial(decode_all, source, pool, planned.items, planned.sizes, target)
    if root is None:
        return StreamedStore(source, target), decode(None, progress)
    shape = (len(planned.items), target.channels, *target.canvas)

    def build(folder: Path) -> None:
        path = folder / "images.npy"
        with path.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, {"shape": shape, "fortran_order": False, "descr": "|u1"})
            begin = file.tell()
            file.truncate(begin + int(np.prod(shape)))
        bad = decode((path, begin), progress)
        (folder / "bad.json").write_text(json.dumps(list(bad.items())))

    ranges = "-".join(f"{value:g}" for value in (*target.range16, *target.range_float))
    way = "" if target.shrink else "-cut"
    key = f"{source.listing.fingerprint}-{target.limit}x{target.channels}{way}-{ranges}-p{target.max_pixels}-v{_VERSION}"
    folder = entry(root, key, build, nbytes=int(np.prod(shape)))
    return MappedStore(folder / "images.npy"), dict(json.loads((folder / "bad.json").read_text()))


def _limit_bad(source: Source | TableSource, bad: dict[int, str], max_bad: float) -> None:
    listing = source.listing
    total, lost = len(listing.names) + listing.refused, len(bad) + listing.refused
    first = [f"{skipped.name}: {skipped.reason}" for skipped in listing.skipped[: 5 if listing.refused or not total else 0]]
    examples = "; ".join([*first, *(f"{listing.names[i]}: {bad[i]}" for i in sorted(bad)[:5])][:5])
    if lost == total:
        raise BadDataError(
            f"nothing in {listing.origin} can be used"
            + (f", {total} items found: {examples}" if total else f": no images{f' ({examples})' if examples else ''}")
        )
    if lost > max_bad * total:
        raise BadDataError(
            f"{lost} of {total} items in {listing.origin} cannot be read ({lost / total:.1%}, allowed {max_bad:.1%}): {examples}. "
            "Repair or remove them, or allow more with --max-bad (max_bad)"
        )


def _vectors(source: ArraySource, max_bad: float) -> Items:
    _limit_bad(source, source.bad, max_bad)
    rows = np.setdiff1d(np.arange(len(source.array)), list(source.bad))
    return _assemble(source, "vector", source.array.shape[1:], 0, rows, rows, None, VectorStore(source), source.bad, None)


def _table(source: TableSource, max_bad: float) -> Items:
    _limit_bad(source, source.bad, max_bad)
    rows = np.setdiff1d(np.arange(len(source.numbers)), list(source.bad))
    items = _assemble(source, "vector", (source.schema.width,), 0, rows, rows, None, TableStore(source), source.bad, None)
    return replace(items, table=source.schema)


def _items(source: Source, heads: np.ndarray, planned: Plan, store: Store, bad: dict[int, str]) -> Items:
    target = planned.target
    kept = ~np.isin(planned.items, list(bad))
    numbers, sizes = planned.items[kept], planned.sizes[kept]
    rows = np.flatnonzero(kept) if isinstance(store, MappedStore) else numbers
    kinds = set(heads[numbers, 3].tolist()) - {PLAIN}
    value_range = (target.range_float if FLOAT in kinds else target.range16) if kinds else None
    full = bool((sizes == target.canvas).all())
    shape = (target.channels, *target.canvas)
    return _assemble(source, "image", shape, planned.image_size, numbers, rows, None if full else sizes, store, bad, value_range)


def _assemble(
    source: Source | TableSource,
    kind: Any,
    shape: tuple[int, ...],
    image_size: int,
    numbers: np.ndarray,
    rows: np.ndarray,
    sizes: np.ndarray | None,
    store: Store,
    bad: dict[int, str],
    value_range: tuple[float, float] | None,
) -> Items:
    listing = source.listing
    labels, classes = None, ()
    if listing.labels is not None:
        labels, classes = listing.labels[numbers], listing.classes
    names = listing.names if len(numbers) == len(listing.names) else listing.names.take(numbers)
    skipped = (*listing.skipped, *(Skipped(listing.names[i], bad[i]) for i in sorted(bad)))
    return Items(
        kind=kind,
        shape=tuple(int(side) for side in shape),
        image_size=image_size,
        labels=labels,
        classes=classes,
        names=names,
        skipped=skipped,
        fingerprint=listing.fingerprint,
        source=listing.origin,
        store=store,
        rows=rows.astype(np.int64),
        sizes=sizes,
        value_range=value_range,
        refused=listing.refused + len(bad),
    )
