"""The one-class protocol: each class in turn is normal, a run learns from it alone, and every other class of the test data is strange."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from selfsup.data import Items, open_data
from selfsup.engine.checkpoint import read_json, replace_file
from selfsup.engine.log import Progress
from selfsup.tasks.pretraining.pretrain import pretrain
from selfsup.tasks.search.detect import detect

MEASURES = ("roc_auc", "average_precision")


def one_class(
    train: Any,
    test: Any,
    method: str = "autoencoder",
    *,
    out: str | Path,
    classes: Sequence[str] = (),
    score: str | None = None,
    k: int = 5,
    seed: int = 0,
    max_bad: float = 0.01,
    device: str = "auto",
    quiet: bool = False,
    **training: Any,
) -> dict[str, Any]:
    """Pretrain on each class alone and measure how well its scores tell the test items of this class from all others.

    Args:
        train, test: labelled data, anything that `selfsup.pretrain` takes.
        method: one of `selfsup methods`; those that reconstruct give all scores.
        out: folder of the runs, one a class, and of one_class.json; what is finished in it is not done again.
        classes: to take as normal, one after the other; all that `train` has when not given.
        score, k: as for `selfsup.detect`.
        seed: of the runs and of the held-out items.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        quiet: no progress on stderr.
        training: arguments of `selfsup.pretrain`, such as steps, and options of the method.

    Returns:
        "classes": by name what `selfsup.detect` says; "mean": by score the means of "roc_auc" and "average_precision" over the classes.

    Raises:
        ValueError: no labels, no such class, or results of other settings in `out`.
    """
    out, progress = Path(out), Progress(quiet=quiet)
    size = {name: training[name] for name in ("image_size", "channels") if name in training}
    items = train if isinstance(train, Items) else open_data(train, max_bad=max_bad, **size)
    if items.labels is None:
        raise ValueError(f"{items.source} has no classes; the one-class protocol needs them, for instance one sub-folder for each")
    there = [items.classes[c] for c in np.unique(items.labels[items.labels >= 0])]
    absent = [name for name in classes if name not in there]
    if absent:
        raise ValueError(f"no class {absent[0]!r} in {items.source}; there are: {', '.join(there)}")
    asked = {"train": items.fingerprint, "method": method, "score": score, "k": k, "seed": seed, "training": _plain(training)}
    kept = _kept(out, asked)
    tested: Items | None = None
    for name in classes or there:
        if name in kept["classes"]:
            continue
        own = items.subset(np.flatnonzero(items.labels == items.classes.index(name)))
        progress.say(f"{name}: {len(own)} normal items")
        run = _run(out, name, own, method, {"seed": seed, "device": device, "quiet": quiet, **training})
        if tested is None:
            tested = _opened_like(run, test, max_bad)
        kept["classes"][name] = detect(run, own, tested, score=score, k=k, normal=(name,), seed=seed, device=device).result
        kept["mean"] = _means([kept["classes"][c] for c in kept["classes"]])
        replace_file(out / "one_class.json", json.dumps(kept, indent=1).encode())
    progress.close()
    return {"classes": {name: kept["classes"][name] for name in classes or there}, "mean": kept["mean"]}


def _plain(training: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float | str | None) else repr(value) for name, value in sorted(training.items())}


def _kept(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Results of classes that are done."""
    path = out / "one_class.json"
    if not path.exists():
        return {"asked": asked, "classes": {}, "mean": {}}
    kept = read_json(path)
    if kept["asked"] != asked:
        raise ValueError(f"{out}: holds results of other data or settings, {kept['asked']}; choose another --out")
    return kept


def _run(out: Path, name: str, items: Items, method: str, training: dict[str, Any]) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)[:60]
    folder = out / f"{items.classes.index(name):03d}-{plain}"
    if (folder / "encoder").is_dir():
        return folder
    if (folder / "config.json").is_file():
        shutil.rmtree(folder)  # was stopped on its way
    return pretrain(items, method, out=folder, **training).path


def _opened_like(run: Path, test: Any, max_bad: float) -> Items:
    from selfsup.tasks.saved.trained_encoder import load

    return load(run).open(test, cache=True, max_bad=max_bad)


def _means(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        score: {key: float(np.mean([result["scores"][score][key]["value"] for result in results])) for key in MEASURES}
        for score in results[0]["scores"]
    }


def as_table(result: Mapping[str, Any]) -> Table:
    """ROC AUC and average precision of each class, and their means, for a terminal."""
    scores = list(result["mean"])
    names = ["normal", *(f"{score}\n{measure}" for measure in ("ROC AUC", "avg. prec.") for score in scores)]
    table = Table(*names, box=SIMPLE, padding=(0, 1, 0, 0))
    for name, found in result["classes"].items():
        table.add_row(name, *(f"{found['scores'][score][key]['value']:.3f}" for key in MEASURES for score in scores))
    table.add_section()
    table.add_row("mean", *(f"{result['mean'][score][key]:.3f}" for key in MEASURES for score in scores))
    return table
