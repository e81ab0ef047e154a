"""Rate and distortion of `selfsup compress` on CIFAR-10's test images, beside JPEG and WebP over their settings.

    selfsup pretrain vqvae cifar10.zip/cifar10/train --encoder vq_4 --out runs/vq4
    python benchmarks/compression.py cifar10.zip --runs runs/vq8 runs/vq4 runs/vq2 --out results/compression.jsonl

One line of JSON a point, and the plot as an SVG beside it. What stands in the file already is not done again.

Protocol: the test images, all 10,000 or an even sample. Of a run: the bytes of its one file, names, sizes and checksums included, by
frequencies and by the prior; the run itself is not counted, as JPEG's program is not. The file is read again, and the images that come out
are compared with the originals. Of JPEG and WebP: the bytes of all files, and these with their headers counted once, since at 32 x 32 a
JPEG's header is larger than its image (selfsup/tasks/compression/codecs.py says exactly what is counted). PSNR is a mean over images.

Careful: the images of cifar10.zip have been JPEGs of quality 75 themselves, so that JPEG of about that quality gives them back nearly as
they were, for few bytes: its points above 28 dB flatter it. `--crop 24` takes the middle of every image, 4 pixels off the grid of those
JPEGs, where it is a codec like the others.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import announce, append_line, fits, inner_folder, read_lines, setting, table

import selfsup
from selfsup.data import Items, open_data
from selfsup.tasks.compression.codecs import measure, psnr

SETTINGS = {"jpeg": (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95), "webp": (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)}
COLOURS = {"selfsup, prior": "#0072b2", "selfsup, frequencies": "#56b4e9", "jpeg, shared": "#d55e00", "jpeg, files": "#e69f00"}
COLOURS |= {"webp, shared": "#007a5a", "webp, files": "#5fc9a8"}
NAMES = {"selfsup, prior": "selfsup, by the prior", "selfsup, frequencies": "selfsup, by frequencies"}
NAMES |= {"jpeg, shared": "JPEG, headers once", "jpeg, files": "JPEG, files as on disk"}
NAMES |= {"webp, shared": "WebP, headers once", "webp, files": "WebP, files as on disk"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with test/CLASS/NAME")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="runs of vqvae on the training images")
    parser.add_argument("--images", type=int, help="an even sample of so many test images; all by default")
    parser.add_argument("--crop", type=int, default=32, help="only the middle of each image, so many pixels wide")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; the plot goes beside it")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    items = open_data(inner_folder(arguments.data, "test"), image_size=32, channels=3)
    count = min(len(items), arguments.images or len(items))
    items = items.subset(np.unique(np.linspace(0, len(items) - 1, count).astype(np.int64)))
    edge = (32 - arguments.crop) // 2
    pixels = items.batch(np.arange(len(items)))["image"].permute(0, 2, 3, 1).numpy()[:, edge : 32 - edge, edge : 32 - edge]
    if edge:
        items = open_data(pixels, cache=False)
    images = list(pixels)
    same = {"images": len(items), "side": pixels.shape[1]}
    done = read_lines(arguments.out)

    def missing(**wanted: Any) -> bool:
        return not any(fits(line, wanted) for line in done)

    for codec, settings in SETTINGS.items():
        for counted in ("files", "shared"):
            for quality in settings:
                if missing(series=f"{codec}, {counted}", quality=quality, **same):
                    point = measure(images, codec, quality, counted)
                    line = {"series": f"{codec}, {counted}", "quality": quality, "psnr": point.psnr}
                    append_line(arguments.out, {**line, "bits_per_pixel": rate(point.bytes, images), **same, **facts})
    for run in arguments.runs:
        for prior in (False, True):
            series = "selfsup, prior" if prior else "selfsup, frequencies"
            if missing(series=series, run=str(run), **same):
                append_line(arguments.out, {"series": series, "run": str(run), **round_trip(run, items, images, prior), **same, **facts})
    lines = [line for line in read_lines(arguments.out) if all(line[key] == value for key, value in same.items())]
    shown = ("series", "run", "quality", "bits_per_pixel", "psnr", "compress_seconds", "decompress_seconds")
    table([{key: line.get(key) for key in shown} for line in lines])
    plot = arguments.out.with_suffix(".svg")
    plot.write_text(drawn(lines))
    print(f"plot in {plot}")


def rate(size: float, images: Sequence[np.ndarray]) -> float:
    return 8 * size / sum(image.shape[0] * image.shape[1] for image in images)


def round_trip(run: Path, items: Items, images: Sequence[np.ndarray], prior: bool) -> dict[str, Any]:
    """Compress, read again, compare; seconds are of the processor, networks and coder together."""
    with tempfile.TemporaryDirectory(prefix="selfsup-benchmark-") as folder:
        file = Path(folder) / "images.ssc"
        begin = time.process_time()
        found = selfsup.compress(run, items, out=file, prior=prior, beside=False)
        middle = time.process_time()
        back = selfsup.decompress(run, file)
        end = time.process_time()
    distortion = float(np.mean([psnr(image, other) for image, (_, other) in zip(images, back, strict=True)]))
    if not math.isclose(distortion, found["psnr"], rel_tol=1e-12):
        raise RuntimeError(f"the images that were read again have {distortion} dB, those that were written {found['psnr']}")
    return {**found, "compress_seconds": middle - begin, "decompress_seconds": end - middle}


def drawn(lines: Sequence[dict[str, Any]]) -> str:
    """PSNR over bits a pixel, the rate on a logarithmic axis."""
    left, top, wide, high = 64, 40, 640, 400
    rates, decibels = [line["bits_per_pixel"] for line in lines], [line["psnr"] for line in lines]
    first, last = math.floor(math.log2(min(rates))), math.ceil(math.log2(max(rates)))
    low, most = 2 * math.floor(min(decibels) / 2), 2 * math.ceil(max(decibels) / 2)

    def at(line: dict[str, Any]) -> tuple[float, float]:
        x = left + wide * (math.log2(line["bits_per_pixel"]) - first) / (last - first)
        return round(x, 1), round(top + high * (most - line["psnr"]) / (most - low), 1)

    box, middle = f"0 0 {left + wide + 190} {top + high + 60}", top + high / 2
    title = f"Rate and distortion, {lines[0]['images']:,} CIFAR-10 test images of {lines[0]['side']} x {lines[0]['side']} pixels"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{left}" y="22" font-size="15">{title}</text>',
        f'<text x="{left + wide / 2}" y="{top + high + 46}" text-anchor="middle">bits a pixel, logarithmic</text>',
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">PSNR, dB</text>',
    ]
    for power in range(first, last + 1):
        x = left + wide * (power - first) / (last - first)
        parts.append(f'<path d="M{x:.1f} {top}V{top + high}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + high + 20}" text-anchor="middle">{2.0**power:g}</text>')
    for value in range(low, most + 1, 2 if most - low <= 20 else 4):
        y = round(top + high * (most - value) / (most - low), 1)
        parts.append(f'<path d="M{left} {y}H{left + wide}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value}</text>')
    ends = []
    for series, colour in COLOURS.items():
        points = sorted(at(line) for line in lines if line["series"] == series)
        if points:
            joined = " ".join(f"{x},{y}" for x, y in points)
            dashes = ' stroke-dasharray="5 4"' if "files" in series or "frequencies" in series else ""
            parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
            parts += [f'<circle cx="{x}" cy="{y}" r="{5 if "selfsup" in series else 3}" fill="{colour}"/>' for x, y in points]
            ends.append((points[-1][1], series, colour))
    for number, (_, series, colour) in enumerate(sorted(ends)):
        x, y = left + wide + 20, top + 14 + 22 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/><text x="{x + 12}" y="{y}">{NAMES[series]}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
