"""Anomaly detection: one-class protocols on MNIST and CIFAR-10, and the breast-cancer table, beside two detectors of scikit-learn.

    python benchmarks/anomalies.py breast_cancer --out results/anomalies.jsonl
    python benchmarks/anomalies.py mnist --folder MNIST --out results/anomalies.jsonl
    python benchmarks/anomalies.py cifar10 --folder cifar10.zip --out results/anomalies.jsonl

MNIST is the folder with the four IDX files. One line of JSON a detector, normal class (or split of the table) and seed; what stands in the
file already is skipped. The table at the end has means over classes or splits.

mnist, cifar10  Each class in turn is normal: a detector learns from its training images and scores all 10,000 test images, of which those
                of the nine other classes are anomalies.
breast_cancer   scikit-learn's table of 569 tumours and 30 measurements: a detector learns from half of the benign ones and scores the
                others and all malignant ones. Seeds are splits.

Detectors: a method of selfsup, with its three scores (`selfsup detect`: "reconstruction", "neighbours", "both"), and as rivals
`isolation_forest` and `local_outlier_factor` (novelty=True) with scikit-learn's defaults on the same numbers: pixels in [0, 1], or columns
in standard deviations of the training rows. No labels but those of normal items are looked at before scoring; the settings below were
chosen on classes 2 and 8 of MNIST, and on splits 0 to 4 of the table, so that splits 5 to 9 are measured.
"""

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import announce, append_line, fits, inner_folder, read_lines, read_mnist, setting, table

import selfsup
from selfsup.data import Items, open_data
from selfsup.evaluation.anomaly import measure
from selfsup.views.crops import clean

SETTINGS: dict[str, dict[str, Any]] = {
    "mnist": {"method": "autoencoder", "steps": 800, "batch_size": 32, "code_size": 32, "image_size": 16, "precision": "fp32"},
    "cifar10": {"method": "autoencoder", "steps": 800, "batch_size": 32, "code_size": 128, "precision": "fp32"},
    "breast_cancer": {
        "method": "denoising",
        "steps": 200,
        "batch_size": 64,
        "corruption": "gaussian",
        "level": 1.0,
        "precision": "fp32",
    },
}
RIVALS = ("isolation_forest", "local_outlier_factor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path, help="where MNIST or CIFAR-10 is")
    parser.add_argument("--classes", nargs="+", help="normal classes; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="0 by default; 5 to 9, five splits, of the table")
    parser.add_argument("--settings", type=json.loads, default={}, help='instead of those in this file, as JSON: {"steps": 500}')
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    if arguments.data != "breast_cancer" and arguments.folder is None:
        raise SystemExit(f"{arguments.data} needs --folder")
    facts = setting()
    announce(facts)
    settings = {**SETTINGS[arguments.data], **arguments.settings}
    runs = (arguments.runs or arguments.out.parent / "runs") / f"anomalies-{arguments.data}"
    protocol = breast_cancer if arguments.data == "breast_cancer" else one_class_images

    def keep(line: dict[str, Any]) -> None:
        append_line(arguments.out, {"data": arguments.data, **line, **facts})

    def done(**wanted: Any) -> bool:
        wanted["data"] = arguments.data
        return any(fits(line, wanted) for line in read_lines(arguments.out))

    protocol(arguments, settings, runs, keep, done)
    table(means([line for line in read_lines(arguments.out) if line["data"] == arguments.data]))


def one_class_images(
    arguments: argparse.Namespace, settings: dict[str, Any], runs: Path, keep: Callable[..., None], done: Callable[..., bool]
) -> None:
    sources = [labelled(arguments, part, runs) for part in ("train", "test")]
    train, test = (open_data(source) for source in sources)
    method, training = settings["method"], {key: value for key, value in settings.items() if key != "method"}
    for seed in arguments.seeds or [0]:
        for name in arguments.classes or train.classes:
            wanted = {"normal": name, "seed": seed}
            if not done(**wanted, detector=method, settings=settings):
                begin = time.perf_counter()
                folder = runs / f"{method}-{seed}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]}"
                found = selfsup.one_class(*sources, method, out=folder, classes=[name], seed=seed, quiet=True, **training)
                for score, measured in found["classes"][name]["scores"].items():
                    keep({**wanted, "detector": method, "score": score, "settings": settings, **plain(measured), **since(begin)})
            rows = [open_rows(train.subset(np.flatnonzero(of_class(train, name)))), open_rows(test)]
            for rival in arguments.rivals:
                if not done(**wanted, detector=rival):
                    begin = time.perf_counter()
                    measured = measure(rival_scores(rival, *rows, seed), ~of_class(test, name))
                    keep(
                        {
                            **wanted,
                            "detector": rival,
                            "score": rival,
                            **plain({k: v._asdict() for k, v in measured.items()}),
                            **since(begin),
                        }
                    )


def breast_cancer(
    arguments: argparse.Namespace, settings: dict[str, Any], runs: Path, keep: Callable[..., None], done: Callable[..., bool]
) -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    benign = data.target == list(data.target_names).index("benign")
    method, training = settings["method"], {key: value for key, value in settings.items() if key != "method"}
    for seed in arguments.seeds or range(5, 10):
        order = np.random.default_rng(seed).permutation(np.flatnonzero(benign))
        parts = order[: len(order) // 2], np.concatenate([order[len(order) // 2 :], np.flatnonzero(~benign)])
        wanted = {"normal": "benign", "seed": seed}
        if not done(**wanted, detector=method, settings=settings):
            begin = time.perf_counter()
            folder = runs / f"{method}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            files = [write_table(folder / f"{name}.csv", data, rows) for name, rows in zip(("train", "test"), parts, strict=True)]
            run = selfsup.pretrain(str(files[0]), method, out=folder / "run", seed=seed, quiet=True, **training)
            found = selfsup.detect(run.path, str(files[0]), str(files[1]), seed=seed).result
            for score, measured in found["scores"].items():
                keep({**wanted, "detector": method, "score": score, "settings": settings, **plain(measured), **since(begin)})
        scale = StandardScaler().fit(data.data[parts[0]])
        rows = [scale.transform(data.data[part]) for part in parts]
        for rival in arguments.rivals:
            if not done(**wanted, detector=rival):
                begin = time.perf_counter()
                measured = measure(rival_scores(rival, *rows, seed), ~benign[parts[1]])
                keep({**wanted, "detector": rival, "score": rival, **plain({k: v._asdict() for k, v in measured.items()}), **since(begin)})


def labelled(arguments: argparse.Namespace, part: str, runs: Path) -> str:
    """Where the images of one part are, with their classes."""
    if arguments.data == "cifar10":
        return inner_folder(arguments.folder, part)
    path = runs / f"{part}.npz"
    if not path.exists():
        images, numbers = read_mnist(arguments.folder)[part]
        runs.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, labels=numbers)
    return str(path)


def of_class(items: Items, name: str) -> np.ndarray:
    return items.labels == items.classes.index(name)


def open_rows(items: Items) -> np.ndarray:
    """Pixels in [0, 1], a row an image."""
    return clean(items.batch(np.arange(len(items))), items.image_size).flatten(1).numpy()


def write_table(path: Path, data: Any, rows: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*data.feature_names, "class"])
        writer.writerows([*data.data[i].tolist(), data.target_names[data.target[i]]] for i in rows)
    return path


def rival_scores(name: str, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Scores of a detector of scikit-learn, higher for stranger rows."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    rival = IsolationForest(random_state=seed) if name == "isolation_forest" else LocalOutlierFactor(novelty=True)
    return -rival.fit(train).score_samples(test)


def plain(measured: dict[str, Any]) -> dict[str, Any]:
    """Measures side by side: roc_auc, roc_auc_low, ..."""
    auc, precision = measured["roc_auc"], measured["average_precision"]
    found = {"roc_auc": auc["value"], "roc_auc_low": auc["low"], "roc_auc_high": auc["high"], "average_precision": precision["value"]}
    return found | {key: measured[key] for key in ("false_alarms", "detected") if key in measured}


def since(begin: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - begin}


def means(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a detector and score: mean and extremes over classes and seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["detector"], line["score"], json.dumps(line.get("settings"))), []).append(line)
    return [
        {
            "detector": detector,
            "score": score,
            "measured": len(group),
            "roc_auc": float(np.mean([line["roc_auc"] for line in group])),
            "least": min(line["roc_auc"] for line in group),
            "average_precision": float(np.mean([line["average_precision"] for line in group])),
            "settings": settings,
        }
        for (detector, score, settings), group in groups.items()
    ]


if __name__ == "__main__":
    main()
