"""What the methods are worth on CIFAR-10: pretrain without labels on the training images, then kNN and linear probe on frozen vectors.

    python benchmarks/cifar10.py cifar10.zip --methods simclr moco rotation denoising --images 100000 --out results/cifar10.jsonl
    python benchmarks/cifar10.py cifar10.zip --methods simclr --images 200000 --seeds 0 1 2 --out results/cifar10.jsonl
    python benchmarks/cifar10.py cifar10.zip --methods pixels pixels_pca untrained scratch --images 100000 --out results/cifar10.jsonl

One line of JSON a run. What stands in the file already is skipped, and a run that was stopped goes on from its last checkpoint.

Protocol: `selfsup.pretrain` for IMAGES / batch updates with the method's own recipe; vectors of the last checkpoint, of all 50,000 training
and 10,000 test images without augmentation; kNN weighted, k = 200, temperature 0.1; linear: logistic regression, its penalty chosen on a
fifth of the training set. "pretrain_seconds" is the training with its monitors and checkpoints, without the evaluation.

Baselines beside the methods: `pixels` are the raw ones (cosine), `pixels_pca` those in as many dimensions as the encoder has, `untrained`
the network at its start, `scratch` the network trained on all labels for IMAGES images.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, inner_folder, setting, table
from torch import Tensor

import selfsup
from selfsup.data import Items, open_data, sequential
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.knn import knn_top1
from selfsup.evaluation.linear import linear_probe
from selfsup.evaluation.pca import pixels_pca
from selfsup.evaluation.scratch import train_from_scratch
from selfsup.method import Encoder
from selfsup.models import build_encoder
from selfsup.tasks.plan import statistics
from selfsup.views.crops import clean

BASELINES = ("pixels", "pixels_pca", "untrained", "scratch")
KEY = ("method", "images", "seed", "encoder", "options")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument("--methods", nargs="+", default=["simclr", "moco", "rotation", "denoising"], help=f"or any of {', '.join(BASELINES)}")
    parser.add_argument("--images", nargs="+", type=int, default=[100_000], help="images seen in pretraining")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--options", type=json.loads, default={}, help='given to pretrain as well, as JSON: \'{"temperature": 0.5}\'')
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--limit", type=int, help="images of each part, for a quick look")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    train, test = (open_data(inner_folder(arguments.data, part)) for part in ("train", "test"))
    if arguments.limit:
        some = np.random.default_rng(0).permutation
        train, test = (items.subset(np.sort(some(len(items))[: arguments.limit])) for items in (train, test))
    done = read_lines(arguments.out)
    for images in arguments.images:
        for seed in arguments.seeds:
            for method in arguments.methods:
                wanted = {"method": method, "images": images, "seed": seed, "encoder": arguments.encoder, "options": arguments.options}
                if any(all(line.get(key) == wanted[key] for key in KEY) for line in done):
                    continue
                print(f"{method}, {images:,} images, seed {seed}", flush=True)
                line = {**wanted, **run(wanted, arguments, train, test), **facts}
                append_line(arguments.out, line)
                done.append(line)
    table([{name: line.get(name) for name in ("method", "images", "seed", "encoder", *MEASURED)} for line in done])


MEASURED = ("knn_top1", "linear_top1", "pretrain_seconds", "evaluate_seconds")


def run(wanted: dict[str, Any], arguments: argparse.Namespace, train: Items, test: Items) -> dict[str, Any]:
    method, seed, images, found = wanted["method"], wanted["seed"], wanted["images"], {}
    if method in BASELINES:
        begin = time.perf_counter()
        train_x, test_x, linear = baseline(wanted, train, test)
        found["evaluate_seconds"] = time.perf_counter() - begin  # the training from scratch is in it
    else:
        folder = run_folder(arguments, wanted)
        where = {"resume": folder} if (folder / "config.json").exists() else {"out": folder}
        data = arguments.data if where.get("resume") is None and not arguments.limit else None
        network = pretrain(data, where, wanted, inner_folder(arguments.data, "train") if not arguments.limit else None)
        found |= network
        encoder = selfsup.load(folder)
        begin = time.perf_counter()
        train_x, test_x = (embed_items(encoder.network, items, encoder.image_size) for items in (train, test))
        linear = None
        found["evaluate_seconds"] = time.perf_counter() - begin
    del images, seed
    return {**found, **evaluate(train_x, test_x, train, test, linear)}
