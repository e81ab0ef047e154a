"""What the methods are worth on CIFAR-10: pretrain without labels on the training images, then kNN and linear probe on frozen vectors.

    python benchmarks/cifar10.py cifar10.zip --methods simclr moco rotation denoising --images 100000 --out results/cifar10.jsonl
    python benchmarks/cifar10.py cifar10.zip --methods simclr --images 200000 --seeds 0 1 2 --out results/cifar10.jsonl
    python benchmarks/cifar10.py cifar10.zip --methods pixels pixels_pca untrained scratch --images 100000 --out results/cifar10.jsonl

One line of JSON a run. What stands in the file already is skipped, and a run that was stopped goes on from its last checkpoint.

Protocol: `selfsup.pretrain` for IMAGES / batch updates with the method's own recipe; vectors of the last checkpoint, of all 50,000 training
and 10,000 test images without augmentation; kNN weighted, k = 200, temperature 0.1; linear: logistic regression, its penalty chosen on a
fifth of the training set. "pretrain_seconds" is the training with its monitors and checkpoints, "evaluate_seconds" all that comes after it.

Baselines beside the methods: `pixels` are the raw ones, standardised by channel as an
encoder sees them (cosine), `pixels_pca` those in as many dimensions as the encoder has, `untrained`
the network at its start, `scratch` the network trained on all labels for IMAGES images.
"""

import argparse
import hashlib
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, append_line, fits, inner_folder, read_lines, setting, table
from torch import Tensor

import selfsup
from selfsup.data import Items, open_data, sequential
from selfsup.engine.loop import Stopped
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.knn import knn_top1
from selfsup.evaluation.linear import linear_probe
from selfsup.evaluation.pca import pixels_pca
from selfsup.evaluation.scratch import train_from_scratch
from selfsup.method import Encoder
from selfsup.methods import method_class
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.plan import statistics
from selfsup.views.crops import clean

BASELINES = ("pixels", "pixels_pca", "untrained", "scratch")
MEASURED = ("knn_top1", "linear_top1", "pretrain_seconds", "evaluate_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument(
        "--methods", nargs="+", default=["simclr", "moco", "rotation", "denoising"], help=f"or any of {', '.join(BASELINES)}"
    )
    parser.add_argument("--images", nargs="+", type=int, default=[100_000], help="seen in pretraining")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--batch", type=int, help="items in a step; the method's own by default")
    parser.add_argument("--options", type=json.loads, default={}, help='given to pretrain as well, as JSON: {"temperature": 0.5}')
    parser.add_argument("--evaluate", type=int, help="evaluate on so many images of each part, for a quick look; on all by default")
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    train, test = (some(open_data(inner_folder(arguments.data, part)), arguments.evaluate) for part in ("train", "test"))
    lines = read_lines(arguments.out)
    for images, seed, method in itertools.product(arguments.images, arguments.seeds, arguments.methods):
        batch = arguments.batch or (256 if method in BASELINES else method_class(method).recipe.batch_size)
        wanted = {"method": method, "images": images, "seed": seed, "encoder": arguments.encoder, "batch": batch}
        wanted |= {"options": arguments.options, "evaluated_on": [len(train), len(test)]}
        if any(fits(line, wanted) for line in lines):
            continue
        print(f"{method}, {images:,} images, seed {seed}", flush=True)
        measured = baseline(wanted, train, test) if method in BASELINES else pretrained(wanted, arguments, train, test)
        lines.append({**wanted, **measured, **facts})
        append_line(arguments.out, lines[-1])
    table([{name: line.get(name) for name in ("method", "images", "seed", "encoder", *MEASURED)} for line in lines])


def some(items: Items, count: int | None) -> Items:
    """A fixed random part of the items, or all."""
    return items if count is None else items.subset(np.sort(np.random.default_rng(0).permutation(len(items))[:count]))


def pretrained(wanted: dict[str, Any], arguments: argparse.Namespace, train: Items, test: Items) -> dict[str, Any]:
    """Pretrain, or go on with what was stopped; then evaluate the last checkpoint."""
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    run = (arguments.runs or arguments.out.parent / "runs") / f"{wanted['method']}-{wanted['images']}-{wanted['seed']}-{name}"
    try:
        if (run / "config.json").exists():
            selfsup.pretrain(resume=run)
        else:
            settings = {"batch_size": wanted["batch"], "encoder": wanted["encoder"], "seed": wanted["seed"], **wanted["options"]}
            steps = round(wanted["images"] / wanted["batch"])
            selfsup.pretrain(inner_folder(arguments.data, "train"), wanted["method"], steps=steps, out=run, **settings)
    except Stopped as signal:
        raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
    encoder, begin = selfsup.load(run), time.perf_counter()
    vectors = [embed_items(encoder.network, items, encoder.image_size) for items in (train, test)]
    found = evaluate(*vectors, train, test)
    training = json.loads((run / "config.json").read_text())["training"]
    how = {key: training[key] for key in ("steps", "optimizer", "lr", "weight_decay", "precision")}
    spent = json.loads((run / "status.json").read_text())["seconds"]
    return {**found, "pretrain_seconds": spent, "evaluate_seconds": time.perf_counter() - begin, "training": how, "run": str(run)}


def baseline(wanted: dict[str, Any], train: Items, test: Items) -> dict[str, Any]:
    """What the encoder has to beat; in seconds, the training of `scratch` counts as pretraining."""
    begin, seed, size = time.perf_counter(), wanted["seed"], train.image_size
    mean, std = statistics(train)

    def build() -> Encoder:
        return build_encoder(wanted["encoder"], channels=3, image_size=size, mean=mean, std=std)

    torch.manual_seed(seed)
    network, trained, direct = build(), 0.0, {}
    if wanted["method"] == "pixels":
        shift, scale = (torch.tensor(x).view(-1, 1, 1) for x in (mean, std))
        vectors = [torch.cat([((clean(x, size) - shift) / scale).flatten(1) for x in sequential(items, 512)]) for items in (train, test)]
    elif wanted["method"] == "pixels_pca":
        vectors = list(pixels_pca(train, test, network.width, image_size=size, seed=seed))
    elif wanted["method"] == "untrained":
        vectors = [embed_items(network.eval(), items, size) for items in (train, test)]
    else:
        settings = {"image_size": size, "seed": seed, "images": wanted["images"]}
        scratch = train_from_scratch(build, train, np.arange(len(train)), len(train.classes), **settings)
        trained = time.perf_counter() - begin
        vectors = [embed_items(scratch.embed, items, size) for items in (train, test)]
        predicted = embed_items(scratch.predict, test, size).argmax(dim=1)
        direct = {"own_classifier_top1": float((predicted == labels(test)).double().mean())}
    found = evaluate(*vectors, train, test)
    return {**found, **direct, "pretrain_seconds": trained, "evaluate_seconds": time.perf_counter() - begin - trained}


def labels(items: Items) -> Tensor:
    assert items.labels is not None
    return torch.from_numpy(items.labels)


def evaluate(train_x: Tensor, test_x: Tensor, train: Items, test: Items) -> dict[str, Any]:
    """kNN and linear probe on vectors of all items."""
    train_y, test_y = labels(train), labels(test)
    linear = linear_probe(train_x, train_y, test_x, test_y)
    knn = knn_top1(train_x, train_y, test_x, test_y)
    return {"knn_top1": knn, "linear_top1": linear.top1, "linear_penalty": linear.weight_decay, "width": train_x.shape[1]}


if __name__ == "__main__":
    main()
