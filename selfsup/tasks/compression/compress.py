"""`selfsup compress` and `selfsup decompress`: a set of images as the codes of a run, in one file.

A run that quantises turns images into whole numbers. They are entropy-coded, either by how often each occurs in this set, or by what the
run's prior expects of each after those before it. The run itself is needed to read the file and is not counted in its size.

Axes: n images, C channels, H and W of an image, h and w of its map of codes, K codes.
"""

import hashlib
import io
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
from selfsup.tasks.compression import code_blocks, codecs, container
from selfsup.tasks.saved.file_names import file_names
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method
from selfsup.views.crops import clean

LARGEST_SIDE = 1 << 15
"""In pixels: images are compressed at their own size up to here."""

READ_PIXELS = 1 << 22
"""Of the canvases that are read at a time."""

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
        out: the file; by custom its name ends in .container.
        prior: count the bits of each code by the run's prior: smaller and slower.
        best: the checkpoint with the best label-free measure instead of the last; decompress then needs the same.
        beside: look also what JPEG and WebP make of a sample of the images with as many bytes.
        max_bad: largest fraction of unreadable files, 0 to 1.

    Returns:
        "images", "pixels", "bytes" of the file, "header_bytes" of them that hold names, sizes and the table of frequencies,
        "bits_per_pixel", "psnr" in dB, a mean over the images, "prior"; and "beside", what the others do on "beside_images" of them:
        "jpeg" and "webp", each with "files" and "shared" (see selfsup/tasks/compression/codecs.py): "quality", "bits_per_pixel", "psnr".

    Raises:
        ValueError: a run that cannot quantise or has no prior, or data that it does not take.
    """
    trained = load_method(run, best=best)
    trained.require(Quantises, "compress")
    method: Any = trained.method
    if method.codebook_size > container.MOST_CODES:
        raise ValueError(f"{run}: has {method.codebook_size} codes, but a file can count at most {container.MOST_CODES}")
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
    parts = code_blocks.blocks(maps)
    table = [] if prior else code_blocks.frequency_table(maps, method.codebook_size)
    blocks = [code_blocks.encode([maps[i] for i in part], table, method.codebook_size, exact) for part in parts]
    header = container.Header(
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
    size = container.write(Path(out), header, blocks)
    pixels = sum(shape[0] * shape[1] for shape in shapes)
    found: dict[str, Any] = {
        "images": len(maps),
        "pixels": pixels,
        "bytes": size,
        "header_bytes": len(container.pack(header)),
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
    header, blocks = container.read(Path(file))
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
            maps = code_blocks.decode(block, [tuple(shape[2:]) for shape in shapes], header, exact)
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
    step = max(1, min(code_blocks.BLOCK_IMAGES, READ_PIXELS // (items.shape[1] * items.shape[2])))
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
    for rows in code_blocks.alike([image.shape for image in images]):
        x = torch.from_numpy(np.stack([images[i] for i in rows])).permute(0, 3, 1, 2).contiguous().float().div_(255)
        found = method.quantise(x).numpy()
        for i, one in zip(rows, found, strict=True):
            codes[i] = one
    return list(zip(images, codes, _images(method, codes, [image.shape[:2] for image in images]), strict=True))


def _images(method: Any, maps: list[np.ndarray], sizes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """(h, w) codes -> (H, W, C) uint8."""
    images: list[np.ndarray] = [np.empty(0)] * len(maps)
    for rows in code_blocks.alike(sizes):
        codes = torch.from_numpy(np.stack([maps[i] for i in rows]))
        height, width = sizes[rows[0]]
        decoded = method.from_codes(codes, (height, width)) if _any_size(method) else method.from_codes(codes)
        for i, image in zip(rows, _pixels(decoded), strict=True):
            images[i] = image
    return images


def _pixels(images: Tensor) -> np.ndarray:
    """(n, C, H, W) in [0, 1] -> (n, H, W, C) uint8."""
    return images.mul(255).round_().byte().permute(0, 2, 3, 1).contiguous().numpy()


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
