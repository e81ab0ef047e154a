"""selfsup's Loader against an image folder that is read file by file: images/s in the first epoch and in the second.

    python benchmarks/loader.py cifar10.zip --out results/loader.json

folder       PIL and numpy in a torch DataLoader with 2 processes that stay, as peers read folders: every epoch opens and decodes every file
selfsup      the same folder through open_data and Loader: decoded once into a mapped cache
selfsup-zip  the archive read in place

The first epoch begins with nothing: it lists files, starts processes and, for selfsup, builds the cache. Both hand out shuffled uint8
batches with labels, and nothing is done with them. Files come from the system's cache, which has just written them: a disk would favour
selfsup.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import announce, copy_part, extracted, interleaved, median, setting, table, write_json
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from selfsup.data import Loader, open_data

CONTENDERS = ("folder", "selfsup", "selfsup-zip")


class Folder(Dataset):
    """CLASS/NAME files, decoded when asked for."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(p.name for p in folder.iterdir())
        self.files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[i]
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()), label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2, help="the folder's loading processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON")
    arguments = parser.parse_args()
    facts, results = setting(), []
    announce(facts)
    with extracted(arguments.data, "train", arguments.images) as folder:
        archive = folder.parent / "images.zip"
        copy_part(arguments.data, archive, "train", arguments.images)
        for i, name in interleaved(CONTENDERS, arguments.rounds):
            if name == "folder":
                found = read_folder(folder, arguments.batch, arguments.workers)
            else:
                found = read_items(archive if name == "selfsup-zip" else folder, arguments.batch)
            results.append({"round": i, "contender": name, **found})
            print({key: value if isinstance(value, str) else round(value, 1) for key, value in results[-1].items()}, flush=True)
    rows = []
    for name in CONTENDERS:
        mine = [r for r in results if r["contender"] == name]
        row = {"contender": name} | {key: median(r[key] for r in mine) for key in mine[0] if key not in ("round", "contender")}
        rows.append(row)
    for row in rows:
        for epoch in ("first epoch images/s", "second epoch images/s"):
            row[f"{epoch.split()[0]} / folder"] = row[epoch] / rows[0][epoch]
    print(f"\nbatch {arguments.batch}; medians of {arguments.rounds} rounds")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def read_folder(folder: Path, batch_size: int, workers: int) -> dict[str, float]:
    begin = time.perf_counter()
    loader = DataLoader(Folder(folder), batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)
    images = [sum(len(x) for x, _ in loader)]
    middle = time.perf_counter()
    images.append(sum(len(x) for x, _ in loader))
    end = time.perf_counter()
    return {"first epoch images/s": images[0] / (middle - begin), "second epoch images/s": images[1] / (end - middle), "cache s": 0.0}


def read_items(data: Path, batch_size: int) -> dict[str, float]:
    with TemporaryDirectory(prefix="selfsup-cache-") as cache:
        begin = time.perf_counter()
        items = open_data(data, cache_dir=Path(cache))
        opened = time.perf_counter()
        loader = Loader(items, batch_size)
        batches, images, ends = iter(loader), [], []
        for _ in range(2):
            images.append(sum(len(next(batches)["image"]) for _ in range(loader.steps_per_epoch)))
            ends.append(time.perf_counter())
        batches.close()
    first, second = images[0] / (ends[0] - begin), images[1] / (ends[1] - ends[0])
    return {"first epoch images/s": first, "second epoch images/s": second, "cache s": opened - begin}


if __name__ == "__main__":
    main()
