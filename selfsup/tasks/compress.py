"""`selfsup compress` and `selfsup decompress`: a set of images as the codes of a run, in one file.

A run that quantises turns images into whole numbers. They are entropy-coded, either by how often each occurs in this set, or by what the
run's prior expects of each after those before it. The run itself is needed to read the file and is not counted in its size.

Axes: n images, C channels, H and W of an image, h and w of its map of codes, K codes.
"""

import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from selfsup.abilities import Quantises
from selfsup.data import Items
from selfsup.engine.checkpoint import DamagedError
from selfsup.engine.state import unique_state
from selfsup.method import Method
from selfsup.models.pixelcnn import ExactPixelCNN, PixelCNN
from selfsup.tasks import codecs, rans, ssc
from selfsup.tasks.file_names import file_names
from selfsup.tasks.trained import TrainedMethod, load_method
from selfsup.views.crops import clean

LARGEST_SIDE = 1 << 15
"""In pixels: images are compressed at their own size up to here."""

READ_PIXELS = 1 << 22
"""Of the canvases that are read at a time."""

BLOCK_IMAGES, BLOCK_POSITIONS = 1024, 1 << 18
"""Of one block, unless a single image has more."""

TABLE_NUMBERS = 1 << 22
"""Probabilities of the prior that are in memory at a time."""

BESIDE_IMAGES, BESIDE_PIXELS = 500, 1 << 23
"""Of the sample that JPEG and WebP are tried on."""


def compress(
    run: str | Path, data: Any, *, out: str | Path, prior: bool = False, best: bool = False, beside: bool = True, max_bad: float = 0.01
) -> dict[str, Any]:
    """Write a set of images into one file, as the codes of a run.

    Images keep their size where the method takes any; else the central square is kept, in the size that the run was trained at.

    Args:
        run: a run's folder, of a method that quantises.
        data: images, as pretrain takes them.
        out: the file; by custom its name ends in .ssc.
        prior: count the bits of each code by the run's prior: smaller and slower.
        best: the checkpoint with the best label-free measure instead of the last; decompress then needs the same.
        beside: look also what JPEG and WebP make of a sample of the images with as many bytes.
        max_bad: largest fraction of unreadable files, 0 to 1.

    Returns:
        "images", "pixels", "bytes" of the file, "header_bytes" of them that hold names, sizes and the table of frequencies,
        "bits_per_pixel", "psnr" in dB, a mean over the images, "prior"; and "beside", what the others do on "beside_images" of them:
        "jpeg" and "webp", each with "files" and "shared" (see selfsup/tasks/codecs.py): "quality", "bits_per_pixel", "psnr".

    Raises:
        ValueError: a run that cannot quantise or has no prior, or data that it does not take.
    """
    trained = load_method(run, best=best)
    trained.require(Quantises, "compress")
    method: Any = trained.method
    if method.codebook_size > ssc.MOST_CODES:
        raise ValueError(f"{run}: has {method.codebook_size} codes, but a file can count at most {ssc.MOST_CODES}")
    exact = _prior(method, run) if prior else None
    items = _open(trained, data, max_bad)
    if not len(items):
        raise ValueError(f"{items.source}: nothing to compress in it, expected at least one image")
    maps, shapes, quality = [], [], []
    chosen = set(_sample(items).tolist()) if beside and trained.channels in (1, 3) else set()
    sample = []
    for images in _read(trained, items):
        for image, codes, decoded in _quantised(method, images):
            if len(maps) in chosen:
                sample.append(image)
            quality.append(codecs.psnr(image, decoded))
            shapes.append([*image.shape[:2], *codes.shape])
            maps.append(codes)
    different = sorted({tuple(shape) for shape in shapes})
    numbers = {shape: number for number, shape in enumerate(different)}
    parts = _blocks(maps)
    table = [] if prior else _table(maps, method.codebook_size)
    blocks = [_encode([maps[i] for i in part], table, method.codebook_size, exact) for part in parts]
    header = ssc.Header(
        run=fingerprint(method),
        codes=method.codebook_size,
        channels=trained.channels,
        prior=prior,
        table=table,
        shapes=[list(shape) for shape in different],
        shape_of=[numbers[tuple(shape)] for shape in shapes] if len(different) > 1 else [],
        blocks=[len(part) for part in parts],
        names=list(items.names),
    )
    size = ssc.write(Path(out), header, blocks)
    pixels = sum(shape[0] * shape[1] for shape in shapes)
    found: dict[str, Any] = {
        "images": len(maps),
        "pixels": pixels,
        "bytes": size,
        "header_bytes": len(ssc.pack(header)),
        "bits_per_pixel": 8 * size / pixels,
        "psnr": float(np.mean(quality)),
        "prior": prior,
    }
    return found | (_beside(sample, size / pixels) if sample else {})


def decompress(run: str | Path, file: str | Path, *, out: str | Path | None = None, best: bool = False) -> list[tuple[str, np.ndarray]]:
    """The images of a file that `compress` wrote with the same run.

    Args:
        run: the run's folder.
        file: what `compress` wrote.
        out: a new folder to write the images to, as PNG, or as .npy where they have neither 1 nor 3 channels; None to write nothing.
        best: as it was given to `compress`.

    Returns:
        Name and pixels (H, W, C) uint8 of each image, in the order in which they were compressed.

    Raises:
        ValueError: another run, or no such file, or one of another version; `out` holds something already.
        DamagedError: the file is damaged or cut short.
    """
    header, blocks = ssc.read(Path(file))
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise ValueError(f"{out}: there already, and not an empty folder; choose another --out")
    trained = load_method(run, best=best)
    trained.require(Quantises, "decompress")
    method: Any = trained.method
    own = fingerprint(method)
    if (own, method.codebook_size, trained.channels) != (header.run, header.codes, header.channels):
        raise ValueError(
            f"{file}: written with a run whose weights have the fingerprint {header.run}, but those of {run} have {own}; "
            "name that run, in the state in which it was (--best where it was compressed so)"
        )
    exact = _prior(method, run) if header.prior else None
    images: list[np.ndarray] = []
    for number, block in enumerate(blocks, start=1):
        shapes = [header.shape(i) for i in range(len(images), len(images) + header.blocks[number - 1])]
        try:
            maps = _decode(block, [tuple(shape[2:]) for shape in shapes], header, exact)
        except DamagedError as error:
            raise DamagedError(f"{file}: block {number} cannot be decoded: {error}") from None
        images += _images(method, maps, [(shape[0], shape[1]) for shape in shapes])
    named = list(zip(header.names, images, strict=True))
    if out is not None:
        _write(Path(out), named)
    return named


def fingerprint(method: Method) -> str:
    """Hex digest of every tensor of a method."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(unique_state(method).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def as_table(found: Mapping[str, Any]) -> Table:
    """What `compress` found, for people."""
    table = Table(title=f"{found['images']:,} images, {found['bytes']:,} bytes, of them {found['header_bytes']:,} names, sizes and table")
    for name in ("", "bits a pixel", "PSNR, dB", "quality"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("selfsup, one file, the run not counted", f"{found['bits_per_pixel']:.3f}", f"{found['psnr']:.2f}", "")
    words = {"files": "files as on disk", "shared": "headers counted once"}
    for codec, counted in found.get("beside", {}).items():
        for way, point in counted.items():
            large = "" if point["fits"] else ", its smallest"
            row = f"{codec.upper() if codec == 'jpeg' else 'WebP'}, {words[way]}{large}"
            table.add_row(row, f"{point['bits_per_pixel']:.3f}", f"{point['psnr']:.2f}", str(point["quality"]))
    if "beside_images" in found:
        table.caption = f"JPEG and WebP: of {found['beside_images']} of the images, the best quality that is not larger"
    return table


def _prior(method: Method, run: str | Path) -> ExactPixelCNN:
    network = getattr(method, "prior", None)
    if not isinstance(network, PixelCNN):
        raise ValueError(f"{run}: its method has no prior over codes; compress without --prior")
    return ExactPixelCNN(network)


def _any_size(method: Method) -> bool:
    """Whether codes are a map that grows with the image, and `from_codes` takes the size of the images."""
    return hasattr(method, "downsample")


def _open(trained: TrainedMethod, data: Any, max_bad: float) -> Items:
    if _any_size(trained.method):
        return trained.open(data, image_size=LARGEST_SIDE, max_bad=max_bad)
    return trained.open(data, max_bad=max_bad)


def _sample(items: Items) -> np.ndarray:
    height, width = items.shape[1:]
    count = min(len(items), BESIDE_IMAGES, max(1, BESIDE_PIXELS // (height * width)))
    return np.unique(np.linspace(0, len(items) - 1, count).astype(np.int64))


def _read(trained: TrainedMethod, items: Items) -> Iterator[list[np.ndarray]]:
    """Images (H, W, C) uint8 in order, some at a time."""
    step = max(1, min(BLOCK_IMAGES, READ_PIXELS // (items.shape[1] * items.shape[2])))
    for first in range(0, len(items), step):
        batch = items.batch(np.arange(first, min(first + step, len(items))))
        if not _any_size(trained.method):
            yield list(_pixels(clean(batch, trained.image_size)))
            continue
        images = batch["image"].permute(0, 2, 3, 1).numpy()
        sizes = batch["size"].tolist() if "size" in batch else [images.shape[1:3]] * len(images)
        yield [image[:height, :width] for image, (height, width) in zip(images, sizes, strict=True)]


def _quantised(method: Any, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each image with its codes (h, w), and what they are decoded to; images of one shape go together."""
    codes: list[np.ndarray] = [np.empty(0)] * len(images)
    for rows in _alike([image.shape for image in images]):
        x = torch.from_numpy(np.stack([images[i] for i in rows])).permute(0, 3, 1, 2).contiguous().float().div_(255)
        found = method.quantise(x).numpy()
        for i, one in zip(rows, found, strict=True):
            codes[i] = one
    return list(zip(images, codes, _images(method, codes, [image.shape[:2] for image in images]), strict=True))


def _images(method: Any, maps: list[np.ndarray], sizes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """(h, w) codes -> (H, W, C) uint8."""
    images: list[np.ndarray] = [np.empty(0)] * len(maps)
    for rows in _alike(sizes):
        codes = torch.from_numpy(np.stack([maps[i] for i in rows]))
        height, width = sizes[rows[0]]
        decoded = method.from_codes(codes, (height, width)) if _any_size(method) else method.from_codes(codes)
        for i, image in zip(rows, _pixels(decoded), strict=True):
            images[i] = image
    return images


def _pixels(images: Tensor) -> np.ndarray:
    """(n, C, H, W) in [0, 1] -> (n, H, W, C) uint8."""
    return images.mul(255).round_().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _alike(shapes: list[tuple[int, ...]]) -> list[list[int]]:
    """Numbers of the items of each shape."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        rows.setdefault(tuple(shape), []).append(i)
    return list(rows.values())


def _blocks(maps: list[np.ndarray]) -> list[range]:
    """Which images go into each block."""
    parts, first, positions = [], 0, 0
    for i, codes in enumerate(maps):
        if i > first and (i - first == BLOCK_IMAGES or positions + codes.size > BLOCK_POSITIONS):
            parts.append(range(first, i))
            first, positions = i, 0
        positions += codes.size
    return [*parts, range(first, len(maps))]


def _table(maps: list[np.ndarray], codebook_size: int) -> list[int]:
    """Frequencies of all codes in this set, or none where they would cost more than they save."""
    counts = sum((np.bincount(codes.ravel(), minlength=codebook_size) for codes in maps), np.zeros(codebook_size, np.int64))
    shares = rans.frequencies_of_counts(counts)
    used = counts > 0
    saved = float((counts[used] * np.log2(shares[used] * codebook_size / 2**rans.BITS)).sum()) / 8
    cost = len(zlib.compress(shares.astype("<u2").tobytes(), 9))
    return shares.tolist() if saved > cost else []


def _encode(maps: list[np.ndarray], table: list[int], codebook_size: int, exact: ExactPixelCNN | None) -> bytes:
    """One block: a checksum of the codes, then the codes. With the prior, images of one shape go through their positions together."""
    codes = np.concatenate([codes.ravel() for codes in maps])
    if exact is None:
        shares = _shares(table, codebook_size)
        starts, frequencies = (np.cumsum(shares) - shares)[codes], shares[codes]
    else:
        found = [_expected(np.stack([maps[i] for i in rows]), exact) for rows in _alike([codes.shape for codes in maps])]
        starts, frequencies = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _codes_digest(codes) + rans.encode(starts, frequencies, rans.lanes_for(len(codes)))


def _decode(block: bytes, sizes: list[tuple[int, ...]], header: ssc.Header, exact: ExactPixelCNN | None) -> list[np.ndarray]:
    lengths = [height * width for height, width in sizes]
    decoder = rans.Decoder(block[4:], rans.lanes_for(sum(lengths)))
    if exact is None:
        codes = decoder.take(sum(lengths), rans.find_in_one_table(_shares(header.table, header.codes)))
        maps = [part.reshape(size) for part, size in zip(np.split(codes, np.cumsum(lengths)[:-1]), sizes, strict=True)]
    else:
        maps = [np.empty(0, np.int64)] * len(sizes)
        for rows in _alike(sizes):
            written = torch.zeros(len(rows), *sizes[rows[0]], dtype=torch.int64)
            for i, j, logits in exact.walk(written):
                find = rans.find_in_rows(rans.frequencies_of_logits(logits.numpy()))
                written[:, i, j] = torch.from_numpy(decoder.take(len(rows), find))
            for i, codes in zip(rows, written.numpy(), strict=True):
                maps[i] = codes
    decoder.check()
    if _codes_digest(np.concatenate([codes.ravel() for codes in maps])) != block[:4]:
        raise DamagedError("its codes are not those that were written; the prior computes otherwise here than where it was written")
    return maps


def _shares(table: list[int], codebook_size: int) -> np.ndarray:
    return np.array(table) if table else rans.frequencies_of_counts(np.ones(codebook_size, np.int64))


def _codes_digest(codes: np.ndarray) -> bytes:
    return zlib.crc32(codes.astype("<u2").tobytes()).to_bytes(4, "little")


def _expected(codes: np.ndarray, exact: ExactPixelCNN) -> tuple[np.ndarray, np.ndarray]:
    """Start and frequency of each code (n, h, w) under the prior, in the order of positions, at each position all n images."""
    n, height, width = codes.shape
    starts, frequencies = np.empty((2, height * width, n), np.int64)
    step = max(1, TABLE_NUMBERS // (height * width * exact.embedding.shape[0]))
    for first in range(0, n, step):
        part = codes[first : first + step]
        logits = exact.logits(torch.from_numpy(part)).flatten(0, 2).numpy()
        shares = rans.frequencies_of_logits(logits)
        rows, symbols = np.arange(len(shares)), part.ravel()
        mine = shares[rows, symbols]
        starts[:, first : first + step] = (shares.cumsum(axis=1)[rows, symbols] - mine).reshape(len(part), -1).T
        frequencies[:, first : first + step] = mine.reshape(len(part), -1).T
    return starts.ravel(), frequencies.ravel()


def _beside(sample: list[np.ndarray], bytes_a_pixel: float) -> dict[str, Any]:
    pixels = sum(image.shape[0] * image.shape[1] for image in sample)
    budget = bytes_a_pixel * pixels
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for codec in get_args(codecs.Codec):
        for counted in get_args(codecs.Counted):
            point = codecs.at_size(sample, codec, budget, counted)
            figures = {
                "quality": point.quality,
                "bits_per_pixel": 8 * point.bytes / pixels,
                "psnr": point.psnr,
                "fits": point.bytes <= budget,
            }
            found.setdefault(codec, {})[counted] = figures
    return {"beside": found, "beside_images": len(sample)}


def _write(out: Path, named: list[tuple[str, np.ndarray]]) -> None:
    suffix = ".png" if all(image.shape[2] in (1, 3) for _, image in named) else ".npy"
    for name, (_, image) in zip(file_names([name for name, _ in named], suffix), named, strict=True):
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(target, image, allow_pickle=False)
            continue
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
        target.write_bytes(buffer.getvalue())
