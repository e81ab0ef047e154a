"""`make demo`: the main job on real handwritten digits, or on a folder of your own images. Needs scikit-learn for the digits only."""

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from selfsup.data import Items, open_data
from selfsup.tasks.labels.evaluate import as_table, evaluate
from selfsup.tasks.pretraining.pretrain import Run, pretrain

TEST_SHARE = 1 / 3


def digits() -> TensorDataset:
    """1,797 handwritten digits of 8 x 8 pixels, 16 grays, from the UCI repository as scikit-learn ships them; with their labels."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))[:, None]
    return TensorDataset(images, torch.from_numpy(data.target.astype(np.int64)))


def split(items: Items, seed: int = 0) -> tuple[Items, Items]:
    """Two thirds to learn from, one third to test on."""
    order = np.random.default_rng(seed).permutation(len(items))
    tests = round(len(items) * TEST_SHARE)
    return items.subset(np.sort(order[tests:])), items.subset(np.sort(order[:tests]))


def main() -> None:
    """Pretrain without labels, evaluate with few, write the page."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("data", nargs="?", help="folder or archive of images; handwritten digits when not given")
    parser.add_argument("--minutes", type=float, default=1.0, help="budget of the pretraining")
    parser.add_argument("--out", help="the run's folder; runs/demo-TIME when not given")
    arguments = parser.parse_args()
    out = arguments.out or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        if arguments.data is None:
            train, test = split(replace(open_data(digits()), source="handwritten digits"))
            # A mirrored digit is another sign, and an eighth of one may be any digit.
            run = pretrain(train, "simclr", out=out, minutes=arguments.minutes, flip=0.0, smallest_crop=0.3)
        else:
            train, test = split(open_data(arguments.data))
            run = pretrain(train, "simclr", out=out, minutes=arguments.minutes)
        _worth(run, train, test, flip=arguments.data is not None)
    except (ValueError, OSError) as error:
        sys.exit(f"make demo: {error}")


def _worth(run: Run, train: Items, test: Items, *, flip: bool) -> None:
    if train.labels is None or len(set(train.labels.tolist()) - {-1}) < 2:
        print("\nno sub-folders that name classes, so there is nothing to score; what the training itself says is on the page")
        print(f"report  {run.report}")
        return
    result = evaluate(run.path, train, test, protocol=("knn", "linear", "few-label"), counts=(1, 10), scratch_few_images=3_200, flip=flip)
    from rich.console import Console

    Console().print(as_table(result))
    print(f"report  {run.report}")


if __name__ == "__main__":
    main()
