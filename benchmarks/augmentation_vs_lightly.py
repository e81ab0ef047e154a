"""Augmentation alone, selfsup against lightly: views/s on one core, with the same parameters and the same decoded images.

    python benchmarks/augmentation_vs_lightly.py cifar10.zip --out results/augmentation_vs_lightly.json

lightly         SimCLRTransform on PIL images, one after the other, as its loader calls it; collating them is not counted
lightly-tensor  the same on uint8 tensors (C, H, W), which it takes as well
selfsup         TwoCrops on batches of uint8 images, and the standardising that its encoders do first

All give two standardised float32 views of each image; the clock is the processor's. Settings: "cifar" is lightly's for CIFAR-10 (32
pixels, colour strength 0.5, no blur), "imagenet" its default (224 pixels, strength 1.0, blur with probability 0.5), on CIFAR-10 enlarged to
256 pixels.
"""

import argparse
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
import torchvision_on_cpu  # noqa: F401 - before lightly
from common import announce, class_files, interleaved, median, seconds, setting, table, write_json
from lightly.transforms import SimCLRTransform
from lightly.transforms.utils import IMAGENET_NORMALIZE
from PIL import Image

from selfsup.models.normalize import Normalize
from selfsup.views.crops import TwoCrops

SETTINGS = {  # side of the view, side of the image, colour strength, probability of blur, images in a batch of selfsup
    "cifar": (32, 32, 0.5, 0.0, 256),
    "imagenet": (224, 256, 1.0, 0.5, 32),
}
CONTENDERS = ("lightly", "lightly-tensor", "selfsup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip")
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=2, help="of selfsup in a round; lightly gets the same images")
    parser.add_argument("--out", type=Path, help="JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts, rows, rates = setting(), [], {}
    announce(facts)
    for name in arguments.settings:
        works, views = contenders(name, arguments.data, arguments.batches)
        for work in works.values():  # warm
            work()
        found = {contender: [] for contender in works}
        for _, contender in interleaved(CONTENDERS, arguments.rounds):
            found[contender].append(views / seconds(works[contender], time.process_time))
        for contender, mine in found.items():
            row = {"setting": name, "contender": contender, "views/s": median(mine), "least": min(mine), "most": max(mine)}
            rows.append({**row, "/ lightly": median(a / b for a, b in zip(mine, found["lightly"], strict=True))})
        rates[name] = found
    print(f"\none core; medians of {arguments.rounds} rounds; ratios are medians of the rounds' ratios")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": rates})


def contenders(name: str, data: Path, batches: int) -> tuple[dict, int]:
    """What each of them does in a round, and how many views that makes."""
    side, image_side, strength, blur, batch_size = SETTINGS[name]
    pictures = load(data, batches * batch_size, image_side)
    raw = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).contiguous()
    transform = SimCLRTransform(input_size=side, cj_strength=strength, gaussian_blur=blur)
    views = TwoCrops(side, strength, blur=blur)
    normalize = Normalize(3, IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"])
    generator = torch.Generator().manual_seed(0)

    def batched() -> None:
        for images in raw.split(batch_size):
            made = views({"image": images}, generator)
            for view in ("first", "second"):
                normalize(made[view])

    works = {
        "lightly": lambda: [transform(picture) for picture in pictures],
        "lightly-tensor": lambda: [transform(image) for image in raw],
        "selfsup": batched,
    }
    return works, 2 * len(pictures)


def load(path: Path, images: int, side: int) -> list[Image.Image]:
    """The first files of the archive's training part, the classes in turn, decoded and brought to `side` pixels."""
    with zipfile.ZipFile(path) as archive:
        names = class_files(archive, "train")
        chosen = names[:: max(1, len(names) // images)][:images]
        decoded = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]
    return [picture if picture.size == (side, side) else picture.resize((side, side), Image.Resampling.BICUBIC) for picture in decoded]


if __name__ == "__main__":
    main()
