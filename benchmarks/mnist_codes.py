"""One-hot codes of MNIST digits, trained without labels and scored as clusters: cluster accuracy and mutual information with the classes.

    python benchmarks/mnist_codes.py MNIST --out results/mnist_codes.jsonl
    python benchmarks/mnist_codes.py MNIST --options '{"estimator": "straight_through"}' --symbols 10 --epochs 5 --out trial.jsonl

MNIST is the folder with the four IDX files. `discrete_autoencoder` with one variable is trained by `selfsup.pretrain` on the 60,000
training images as 784-vectors in [0, 1], once for each object of --options (by default a sweep over estimators, temperatures and the weight
of the divergence); then every one of the 10,000 test images gets its likeliest symbol. k-means of scikit-learn with as many centres stands
beside it. What stands in --out is not done again.

Two accuracies are given, since there are more symbols than classes: "one_to_one", the Hungarian matching, gives each of the 10 classes one
symbol and counts items of all others as wrong; "many_to_one" names every symbol after its most frequent class.
"""

import argparse
import hashlib
import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, append_line, fits, read_lines, read_mnist, setting, table

import selfsup
from selfsup.engine.loop import Stopped
from selfsup.evaluation.clusters import cluster_scores
from selfsup.tasks.saved.trained_method import load_method

SWEEP = [
    {"estimator": estimator, "temperature": first, "last_temperature": last, "beta": beta}
    for estimator, (first, last), beta in itertools.product(
        ("gumbel_softmax", "straight_through"), ((1.0, 0.5), (1.0, 0.1), (3.0, 0.5)), (1.0, 5.0)
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--options", nargs="+", type=json.loads, default=SWEEP, help="of discrete_autoencoder, one JSON object a run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--no-kmeans", action="store_true", help="leave k-means out")
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    digits, lines = read_mnist(arguments.data), read_lines(arguments.out)
    contenders = [] if arguments.no_kmeans else [{"method": "k-means", "options": {}}]
    contenders += [{"method": "discrete_autoencoder", "options": options} for options in arguments.options]
    for seed, contender in itertools.product(arguments.seeds, contenders):
        wanted = {**contender, "symbols": arguments.symbols, "epochs": arguments.epochs, "seed": seed}
        if any(fits(line, wanted) for line in lines):
            continue
        begin = time.perf_counter()
        try:
            symbols = kmeans(wanted, digits) if wanted["method"] == "k-means" else learned(wanted, arguments, digits)
        except Stopped as signal:
            raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
        scores = asdict(cluster_scores(symbols, digits["test"][1]))
        print({**wanted["options"], **{key: round(value, 4) for key, value in scores.items()}}, flush=True)
        lines.append({**wanted, **scores, "seconds": time.perf_counter() - begin, **facts})
        append_line(arguments.out, lines[-1])
    shown = ("method", "symbols", "seed", "one_to_one", "many_to_one", "nmi", "symbols_used")
    table([{**{name: line.get(name) for name in shown}, "options": json.dumps(line["options"])} for line in lines])


def vectors(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28) bytes -> (N, 784) float32 in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def learned(wanted: dict[str, Any], arguments: argparse.Namespace, digits: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Symbols of the test images; a run that was stopped goes on, one that is finished is taken."""
    train, test = (vectors(digits[part][0]) for part in ("train", "test"))
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    run = (arguments.runs or arguments.out.parent / "runs") / f"mnist-codes-{wanted['symbols']}-{wanted['seed']}-{name}"
    if (run / "config.json").exists():
        selfsup.pretrain(train, resume=run)
    else:
        options = {"code": "one_hot", "code_size": wanted["symbols"], "likelihood": "bernoulli", **wanted["options"]}
        selfsup.pretrain(train, "discrete_autoencoder", out=run, epochs=wanted["epochs"], seed=wanted["seed"], **options)
    method: Any = load_method(run).method
    with torch.no_grad():
        return torch.cat([method.symbols(x)[:, 0] for x in torch.from_numpy(test).split(1000)]).numpy()


def kmeans(wanted: dict[str, Any], digits: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    from sklearn.cluster import KMeans

    train, test = (vectors(digits[part][0]) for part in ("train", "test"))
    found = KMeans(wanted["symbols"], n_init=3, random_state=wanted["seed"]).fit(train)
    return found.predict(test).astype(np.int64)


if __name__ == "__main__":
    main()
