"""Test likelihood of a VAE on statically binarised MNIST, by 5,000 importance samples of every test image.

    python benchmarks/mnist_vae.py MNIST --out results/mnist_vae.jsonl
    python benchmarks/mnist_vae.py MNIST --test-images 500 --samples 1000 --out trial.jsonl      # a look at the likelihood

MNIST is the folder with the four IDX files. Each value of the 60,000 training and 10,000 test images was drawn once as 0 or 1 with a chance
of itself, by numpy's default generator with --binarisation as its seed: fixed data, but not Larochelle's files. A model is trained by
`selfsup.pretrain` on the 784-vectors and read from its run; nothing is chosen on test images. A run that was stopped goes on, and what
stands in --out is not done again. The bar is a negative log-likelihood of at most 92 nats.

One line of JSON a run: "nll" in nats an image with the standard error over test images, "elbo" of all 10,000 test and of as many
training images, the divergence of each unit, active units, seconds of training and evaluation.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, append_line, fits, read_lines, read_mnist, setting, table
from torch import Tensor

import selfsup
from selfsup.engine.loop import Stopped
from selfsup.evaluation.evidence import Bound, evidence_bound, importance_nll
from selfsup.tasks.saved.trained_method import load_method

ITEMS = 64  # test images whose samples are decoded together
AGREE = 0.01  # nats, between bfloat16 and float32 on the same codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, help="the method's own by default")
    parser.add_argument("--options", type=json.loads, default={}, help='given to pretrain as well, as JSON: {"latent_size": 40}')
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of training")
    parser.add_argument("--evaluate-in", choices=("fp32", "bf16"), default="fp32", help="precision of the importance samples' decoding")
    parser.add_argument("--samples", type=int, default=5000, help="importance samples of each test image")
    parser.add_argument("--test-images", type=int, default=10_000, help="a fixed random part, for trials")
    parser.add_argument("--binarisation", type=int, default=0, help="seed that makes the data binary")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    train, test = binarised(arguments.data, arguments.binarisation)
    lines = read_lines(arguments.out)
    for seed in arguments.seeds:
        trained = {name: getattr(arguments, name) for name in ("epochs", "batch", "lr", "options", "precision", "binarisation")}
        trained["seed"] = seed
        how = {name: getattr(arguments, name) for name in ("evaluate_in", "samples", "test_images")}
        if any(fits(line, {**trained, **how}) for line in lines):
            continue
        try:
            run = pretrained(trained, arguments, train)
        except Stopped as signal:
            raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
        lines.append({**trained, **how, **measure(run, train, test, how), "run": str(run), **facts})
        append_line(arguments.out, lines[-1])
    shown = ("epochs", "seed", "nll", "nll_standard_error", "elbo", "train_elbo", "active_units", "train_seconds", "evaluate_seconds")
    table([{name: line.get(name) for name in shown} for line in lines])


def binarised(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images as (N, 784) float32 of 0 and 1, drawn once."""
    images, generator = read_mnist(folder), np.random.default_rng(seed)
    parts = [images[part][0].reshape(-1, 784) for part in ("train", "test")]
    train, test = ((generator.random(x.shape, np.float32) < x / np.float32(255)).astype(np.float32) for x in parts)
    return train, test


def pretrained(wanted: dict[str, Any], arguments: argparse.Namespace, train: np.ndarray) -> Path:
    """Train, or go on with what was stopped, or take what is finished."""
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    run = (arguments.runs or arguments.out.parent / "runs") / f"mnist-vae-{wanted['epochs']}-{wanted['seed']}-{name}"
    if (run / "config.json").exists():
        return selfsup.pretrain(train, resume=run).path
    settings = {key: wanted[key] for key in ("epochs", "lr", "precision", "seed")}
    options = {"likelihood": "bernoulli", **wanted["options"]}
    return selfsup.pretrain(train, "vae", out=run, batch_size=wanted["batch"], **settings, **options).path


def measure(run: Path, train: np.ndarray, test: np.ndarray, how: dict[str, Any]) -> dict[str, Any]:
    model, begin = load_method(run).method, time.perf_counter()
    bounds = [bound(model, x) for x in (test, train[: len(test)])]
    elbo_seconds, begin = time.perf_counter() - begin, time.perf_counter()
    shown = torch.from_numpy(test[np.sort(np.random.default_rng(0).permutation(len(test))[: how["test_images"]])])
    nll = torch.cat([estimate(model, x, how, i) for i, x in enumerate(shown.split(ITEMS))])
    took = time.perf_counter() - begin
    spent = json.loads((run / "status.json").read_text())["seconds"]
    apart = None if how["evaluate_in"] == "fp32" else difference(model, shown[:ITEMS])
    return {
        "nll": float(nll.mean()),
        "nll_standard_error": float(nll.std() / len(nll) ** 0.5),
        "elbo": bounds[0].elbo,
        "train_elbo": bounds[1].elbo,
        "reconstruction": bounds[0].reconstruction,
        "kl": [round(float(value), 4) for value in bounds[0].kl],
        "active_units": bounds[0].active_units(),
        "bf16_differs_by": apart,
        "train_seconds": spent,
        "elbo_seconds": elbo_seconds,
        "evaluate_seconds": took,
    }


def bound(model: Any, x: np.ndarray) -> Bound:
    return evidence_bound(model, torch.from_numpy(x).split(1000))


def estimate(model: Any, x: Tensor, how: dict[str, Any], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=how["evaluate_in"] == "bf16"):
        nll = importance_nll(model, x, samples=how["samples"], generator=generator)
    if seed % 10 == 0:
        print(f"  {seed * ITEMS} test images done, these {float(nll.mean()):.2f} nats", flush=True)
    return nll


def difference(model: Any, x: Tensor) -> float:
    """Nats between the two precisions, a mean over some items, on the same noise; must be small for bfloat16 to count."""
    a, b = (estimate(model, x, {"evaluate_in": p, "samples": 1000}, 1) for p in ("fp32", "bf16"))
    apart = float((a - b).mean().abs())
    if apart > AGREE:
        print(f"warning: bfloat16 and float32 differ by {apart:.3f} nats; evaluate in fp32")
    return apart


if __name__ == "__main__":
    main()
