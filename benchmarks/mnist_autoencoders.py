"""Autoencoders on MNIST: codes against principal components, denoising against plain, a stack against no pretraining.

    python benchmarks/mnist_autoencoders.py MNIST --out results/mnist_autoencoders.jsonl
    python benchmarks/mnist_autoencoders.py MNIST --parts stack --seeds 0 1 2 3 4 --out results/mnist_autoencoders.jsonl

MNIST is the folder with the four IDX files. One line of JSON a measurement; what stands in the file already is skipped, and a pretraining
that was stopped goes on from its last checkpoint. No part looks at test labels or test errors to choose anything.

codes   `autoencoder` with a code of 30 units: squared error of the 10,000 test images, summed over the pixels of an image and averaged over
        images as Hinton and Salakhutdinov (2006) give it, beside that of PCA of 30 components, fitted to 10,000 training images. The bar
        is half of PCA's.
probe   `denoising` beside `autoencoder` with the same network, decoder and budget: logistic regression on frozen vectors with 100 labels of
        each digit, over 5 draws of the labels (`few_label`), for each seed of the pretraining. The bar: denoising is higher.
stack   `stacked_denoising` of three layers, then fine-tuned with 1,000 labels, beside the same network fine-tuned from its random start
        (Vincent et al. 2010, section 6). A seed draws the labels (1,000 to train and as many to validate, the same for both sides), the
        weights and the order. Both sides: cross entropy, batches of 20, a constant rate, stopped when the validation error has not
        fallen for PATIENCE epochs, the weights of its best epoch kept; the learning rate with the best validation error is chosen from
        the same grid, each side its own. The bar: a lower mean test error over 5 seeds.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from common import announce, append_line, fits, read_lines, read_mnist, setting, table
from torch import Tensor, nn

import selfsup
from selfsup.data import Items, open_data
from selfsup.engine.checkpoint import read_json
from selfsup.engine.loop import Stopped
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.few_label import few_label, labelled_rows
from selfsup.evaluation.reconstruction_error import reconstruction_against_pca
from selfsup.method import Encoder
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.plan import statistics
from selfsup.tasks.saved.trained_method import load_method

RATES = (1e-4, 3e-4, 1e-3)
PATIENCE, MOST_EPOCHS, FINE_TUNING_BATCH = 15, 100, 20
LABELS, DRAWS = 100, 5  # of each digit; draws of `probe`
PIXELS = 28 * 28


class Digits(NamedTuple):
    items: Items  # 28 x 28, without labels
    labels: Tensor  # (N,) int64


def codes(wanted: dict[str, Any], train: Digits, test: Digits, runs: Path) -> dict[str, Any]:
    """Test error of a short code, and of as many principal components."""
    run = pretrained(wanted, train, runs)
    trained = load_method(run)
    width = trained.method.encoder.width
    found = reconstruction_against_pca(trained.method.reconstruct, train.items, test.items, width, image_size=28)
    errors = {"squared_error": PIXELS * found.squared_error, "pca_squared_error": PIXELS * found.pca_squared_error, "width": found.width}
    return {**errors, "ratio": found.squared_error / found.pca_squared_error, **spent(run)}


def probe(wanted: dict[str, Any], train: Digits, test: Digits, runs: Path) -> dict[str, Any]:
    """Accuracy of a linear classifier with few labels on frozen vectors."""
    run = pretrained(wanted, train, runs)
    network = selfsup.load(run).network
    vectors = [embed_items(network, digits.items, 28) for digits in (train, test)]
    found = few_label(vectors[0], train.labels, vectors[1], test.labels, counts=[LABELS], seeds=DRAWS)[str(LABELS)]
    return {"top1": found.mean, "low": found.low, "high": found.high, "width": network.width, **spent(run)}


def stack(wanted: dict[str, Any], train: Digits, test: Digits, runs: Path) -> dict[str, Any]:
    """Test error after fine-tuning, from pretrained layers or from the random ones that pretraining began with."""
    seed, facts = wanted["seed"], {}
    if wanted["method"] == "none":
        torch.manual_seed(seed)
        mean, std = statistics(train.items)
        network = build_encoder("stack", channels=1, image_size=28, mean=mean, std=std)
    else:
        run = pretrained(wanted, train, runs)
        network, facts = selfsup.load(run).network, spent(run)
    rows = labelled_rows(train.labels, 2 * LABELS, seed).view(10, 2, LABELS)  # by digit: those to train on, those to validate on
    parts = [some(train, rows[:, i].flatten()) for i in range(2)]
    begin = time.perf_counter()
    results = {rate: fine_tuned(network, *parts, rate, seed) for rate in RATES}
    rate = min(RATES, key=lambda rate: results[rate][1])
    model, valid_error, epoch = results[rate]
    error = float((predicted(model, images_of(test)) != test.labels).double().mean())
    grid = {str(rate): result[1] for rate, result in results.items()}
    chosen = {"test_error": error, "valid_error": valid_error, "rate": rate, "epoch": epoch, "valid_errors": grid}
    return {**chosen, "fine_tuning_seconds": time.perf_counter() - begin, **facts}


def fine_tuned(
    network: Encoder, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], rate: float, seed: int
) -> tuple[nn.Module, float, int]:
    """The network and a linear layer at the epoch with the least validation error: (model, that error, that epoch)."""
    torch.manual_seed(seed)
    encoder = build_encoder("stack", channels=1, image_size=28)
    encoder.load_state_dict(network.state_dict())
    model = nn.Sequential(encoder, nn.Linear(encoder.width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    best, kept, at = 2.0, {}, 0
    for epoch in range(1, MOST_EPOCHS + 1):
        for rows in torch.randperm(len(train[0])).split(FINE_TUNING_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(train[0][rows]), train[1][rows]).backward()
            optimizer.step()
        error = float((predicted(model, valid[0]) != valid[1]).double().mean())
        if error < best:
            best, at, kept = error, epoch, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if epoch - at >= PATIENCE:
            break
    model.load_state_dict(kept)
    return model, best, at


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(dim=1) for part in x.split(1000)])


def images_of(digits: Digits) -> Tensor:
    return digits.items.batch(np.arange(len(digits.items)))["image"].float() / 255


def some(digits: Digits, rows: Tensor) -> tuple[Tensor, Tensor]:
    return images_of(Digits(digits.items.subset(rows.numpy()), digits.labels)), digits.labels[rows]


def pretrained(wanted: dict[str, Any], train: Digits, runs: Path) -> Path:
    """Pretrain, or go on with what was stopped, or take what is finished."""
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    run = runs / f"mnist-{wanted['part']}-{wanted['method']}-{wanted['images']}-{wanted['seed']}-{name}"
    if (run / "config.json").exists():
        return selfsup.pretrain(train.items, resume=run).path
    settings = {**wanted["settings"], **wanted["options"]}
    steps = round(wanted["images"] / settings["batch_size"])
    return selfsup.pretrain(train.items, wanted["method"], steps=steps, seed=wanted["seed"], out=run, **settings).path


def spent(run: Path) -> dict[str, Any]:
    return {"pretrain_seconds": read_json(run / "status.json")["seconds"], "run": str(run)}


class Part(NamedTuple):
    measure: Callable[[dict[str, Any], Digits, Digits, Path], dict[str, Any]]
    methods: dict[str, dict[str, Any]]  # what is compared, and how each is pretrained
    images: int  # seen in pretraining
    seeds: list[int]
    shown: tuple[str, ...]


WHOLE = {"smallest_crop": 1.0, "flip": 0.0}  # digits as they are
SMALL = {"encoder": "small", "batch_size": 64}
PARTS = {
    "codes": Part(
        codes,
        {"autoencoder": {"encoder": "dcgan", "batch_size": 64, "lr": 2e-3, "code_size": 30}},
        300_000,
        [0],
        ("method", "images", "seed", "squared_error", "pca_squared_error", "ratio", "pretrain_seconds"),
    ),
    "probe": Part(
        probe,
        {"autoencoder": SMALL, "denoising": {**SMALL, **WHOLE}},
        200_000,
        [0, 1, 2],
        ("method", "images", "seed", "top1", "low", "high", "pretrain_seconds"),
    ),
    "stack": Part(
        stack,
        {"none": {}, "stacked_denoising": {"batch_size": 64, "reconstruction": "cross_entropy"}},
        900_000,
        [0, 1, 2, 3, 4],
        ("method", "images", "seed", "test_error", "valid_error", "rate", "epoch", "pretrain_seconds", "fine_tuning_seconds"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--images", type=int, help="seen in each pretraining; the part's own by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="the part's own by default")
    parser.add_argument("--options", type=json.loads, default={}, help='given to pretrain as well, as JSON: {"batch_size": 128}')
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts, lines = setting(), read_lines(arguments.out)
    announce(facts)
    train, test = (Digits(open_data(images), torch.from_numpy(labels)) for images, labels in read_mnist(arguments.data).values())
    for name in arguments.parts:
        part = PARTS[name]
        for seed in arguments.seeds or part.seeds:
            for method, settings in part.methods.items():
                options, images = (arguments.options, arguments.images or part.images) if settings else ({}, 0)
                wanted = {"part": name, "method": method, "images": images, "seed": seed, "settings": settings, "options": options}
                if any(fits(line, wanted) for line in lines):
                    continue
                print(f"{name}: {method}, seed {seed}", flush=True)
                try:
                    measured = part.measure(wanted, train, test, arguments.runs or arguments.out.parent / "runs")
                except Stopped as signal:
                    raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
                lines.append({**wanted, **measured, **facts})
                append_line(arguments.out, lines[-1])
        table([{key: line.get(key) for key in part.shown} for line in lines if line["part"] == name])


if __name__ == "__main__":
    main()
