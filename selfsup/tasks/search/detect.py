"""`selfsup detect`: which items are strange beside normal ones, and how sure one can be."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Column, Table

from selfsup.data import Items
from selfsup.engine.checkpoint import replace_file
from selfsup.evaluation.anomaly import find_threshold, measure
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_encoder import TrainedEncoder
from selfsup.tasks.saved.trained_method import TrainedMethod
from selfsup.tasks.search.detector import Detector, open_run, scores_of
from selfsup.tasks.search.heatmaps import write_heatmaps

HELD_OUT = 0.2  # of the normal items, for the threshold


@dataclass(frozen=True)
class Detection:
    """Scores of the test items, in their order.

    Attributes:
        names: of the N items.
        scores: by kind, (N,) float64; higher is stranger.
        flags: (N,) bool, whether the score in `result["flagged_by"]` is above its threshold.
        result: counts, thresholds, measures and notes, as JSON can hold them.
    """

    names: Sequence[str]
    scores: Mapping[str, np.ndarray]
    flags: np.ndarray
    result: dict[str, Any]


def detect(
    run: str | Path | TrainedMethod | TrainedEncoder,
    train: Any,
    test: Any,
    *,
    score: str | None = None,
    k: int = 5,
    false_alarms: float = 0.01,
    normal: str | Sequence[str] = (),
    held_out: Any = None,
    out: str | Path | None = None,
    heatmaps: str | Path | None = None,
    best: bool = False,
    seed: int = 0,
    max_bad: float = 0.01,
    device: str = "auto",
) -> Detection:
    """Score test items by how strange they are beside normal ones.

    Args:
        run: a run, an encoder folder, or what `selfsup.load` or `selfsup.tasks.saved.trained_method.load_method` gave.
        train: normal data, anything that `selfsup.pretrain` takes.
        test: data to score; where it has classes, it is also measured how well the scores tell anomalies from normal items.
        score: any of reconstruction, neighbours and both, with commas; all that the run can give when not given.
        k: neighbours among the normal items.
        false_alarms: wanted share of normal items that are flagged, 0 to 1.
        normal: classes that are normal, with commas; those of `train` when not given.
        held_out: normal data that the run was not trained on, for the threshold; a fifth of `train`, drawn by `seed`, when not given. Of a
            run on `train` itself the threshold is then too low, as it reconstructs what it has seen better than what is new.
        out: scores.csv: name, scores, flag.
        heatmaps: folder for pictures of where the reconstruction errs, of the 100 strangest images.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of the draw of held-out items and of the intervals.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: a score that the run cannot give, classes that are not there, or too few normal items.
    """
    trained = open_run(run, best=best)
    kinds = scores_of(trained, score)
    opened = {name: trained.open(data, cache=True, max_bad=max_bad) for name, data in (("train", train), ("test", test))}
    wanted = tuple(c.strip() for c in normal.split(",") if c.strip()) if isinstance(normal, str) else tuple(normal)
    classes, notes = _normal_classes(opened["train"], opened["test"], wanted)
    items = _only(opened["train"], wanted, notes) if wanted else opened["train"]
    reference, usual = _split(
        items, trained.open(held_out, cache=True, max_bad=max_bad) if held_out is not None else None, wanted, seed, notes
    )
    seen = held_out is None and trained.config["data"]["fingerprint"] == opened["train"].fingerprint
    if seen:
        notes.append("the run was trained on --train, its held-out part included: expect more false alarms, many more where it is small")
    if opened["train"].fingerprint == opened["test"].fingerprint:
        notes.append("--train and --test are the same data: normal items find themselves among their neighbours")
    detector = Detector(trained, kinds, reference, usual, k=k, device=choose_device(device))
    scores = detector(opened["test"])
    thresholds = {name: find_threshold(detector.usual[name], false_alarms) for name in kinds}
    flags = scores[kinds[-1]] > thresholds[kinds[-1]].value
    anomalous, known = _truth(opened["test"], classes, notes)
    found: dict[str, Any] = {}
    for name in kinds:
        above = scores[name] > thresholds[name].value
        found[name] = {"threshold": thresholds[name].value, "flagged": int(above.sum())}
        if known.any() and not anomalous[known].all():
            found[name]["false_alarms"] = float(above[known & ~anomalous].mean())
        if (known & anomalous).any():
            found[name]["detected"] = float(above[known & anomalous].mean())
        if (known & anomalous).any() and (known & ~anomalous).any():
            measured = measure(scores[name][known], anomalous[known], seed=seed)
            found[name] |= {key: value._asdict() for key, value in measured.items()}
    first = thresholds[kinds[-1]]
    result = {
        "train": {"source": items.source, "normal": len(reference), "held_out": len(usual)},
        "test": {"source": opened["test"].source, "items": len(opened["test"])},
        "normal_classes": list(classes),
        "k": k,
        "false_alarms": {"wanted": false_alarms, "expected": first.expected, "held_out": first.held_out, "seen_in_training": seen},
        "flagged_by": kinds[-1],
        "scores": found,
        "notes": notes,
    }
    if known.any():
        result["test"] |= {"normal": int((known & ~anomalous).sum()), "anomalous": int((known & anomalous).sum())}
    if out is not None:
        _write(Path(out), opened["test"], scores, flags)
    if heatmaps is not None:
        notes.append(write_heatmaps(Path(heatmaps), detector, usual, opened["test"], scores[kinds[-1]]))
    return Detection(opened["test"].names, scores, flags, result)


def _normal_classes(train: Items, test: Items, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the normal classes, () where nothing is said of any, and what there is to say."""
    there = sorted({*train.classes, *test.classes})
    absent = [name for name in wanted if name not in there]
    if absent:
        raise ValueError(f"no class {absent[0]!r} in {train.source} or {test.source}; there are: {', '.join(there) or 'none'}")
    if wanted or train.labels is None:
        return wanted, []
    occurring = np.unique(train.labels[train.labels >= 0])
    return tuple(train.classes[c] for c in occurring.tolist()), []


def _only(items: Items, wanted: tuple[str, ...], notes: list[str]) -> Items:
    """Items of the wanted classes; all of them where they have no classes."""
    if items.labels is None:
        return items
    numbers = [c for c, name in enumerate(items.classes) if name in wanted]
    kept = np.flatnonzero(np.isin(items.labels, numbers))
    if not len(kept):
        raise ValueError(f"no item of {items.source} is of the class {', '.join(wanted)}; its classes are: {', '.join(items.classes)}")
    if len(kept) < len(items):
        notes.append(f"{len(items) - len(kept)} of {len(items)} items of {items.source} are not of a normal class and were left out")
    return items.subset(kept)


def _split(items: Items, held_out: Items | None, wanted: tuple[str, ...], seed: int, notes: list[str]) -> tuple[Items, Items]:
    """(normal items to compare with, held-out ones)."""
    if held_out is not None:
        return items, _only(held_out, wanted, notes) if wanted else held_out
    count = round(HELD_OUT * len(items))
    if count < 1:
        raise ValueError(f"{items.source} has {len(items)} normal items, too few to hold some out; give more, or --held-out")
    order = np.random.default_rng(seed).permutation(len(items))
    return items.subset(np.sort(order[count:])), items.subset(np.sort(order[:count]))


def _truth(test: Items, classes: tuple[str, ...], notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: whether an item is an anomaly, and whether one can know."""
    if test.labels is None or not classes:
        return np.zeros(len(test), bool), np.zeros(len(test), bool)
    known = test.labels >= 0
    normal = np.isin(test.labels, [c for c, name in enumerate(test.classes) if name in classes])
    if known.any() and (normal[known].all() or not normal[known].any()):
        what = "normal" if normal[known].any() else "anomalous"
        notes.append(f"all labelled items of {test.source} are {what}, so there is no ROC AUC (normal: {', '.join(classes)})")
    return ~normal & known, known


def _write(out: Path, items: Items, scores: Mapping[str, np.ndarray], flags: np.ndarray) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["name", *scores, "flag"])
    columns = [column.tolist() for column in scores.values()]
    writer.writerows([name, *(f"{s:.6g}" for s in row), int(flag)] for name, *row, flag in zip(items.names, *columns, flags, strict=True))
    replace_file(out, text.getvalue().encode("utf-8", "backslashreplace"))


def as_table(result: Mapping[str, Any]) -> Table:
    """Thresholds and measures for a terminal, half of the 95 % interval beside the measures."""
    said, first = result["false_alarms"], next(iter(result["scores"].values()))
    labelled = "roc_auc" in first
    caption = f"{result['test']['items']} items beside {result['train']['normal']} normal ones, k = {result['k']}"
    if labelled:
        caption += f"; {result['test']['anomalous']} anomalies, normal: {', '.join(result['normal_classes'])}; 95 % intervals"
    caption += f"\nfalse alarms: {said['wanted']:.3g} wanted, at most {said['expected']:.3g} expected, by {said['held_out']} held-out items"
    caption += " that the run was trained on" if said["seen_in_training"] else ""
    caption += f"; flagged by {result['flagged_by']}"
    names = ["score", "threshold", *(["ROC AUC", "avg. prec.", "false %", "found %"] if labelled else ["flagged"])]
    table = Table(*(Column(name, no_wrap=True) for name in names), box=SIMPLE, padding=(0, 1, 0, 0), caption=caption)
    for name, found in result["scores"].items():
        cells = [name, f"{found['threshold']:.4g}"]
        if not labelled:
            cells.append(str(found["flagged"]))
        else:
            measured = [found[key] for key in ("roc_auc", "average_precision")]
            cells += [f"{m['value']:.3f} ± {(m['high'] - m['low']) / 2:.3f}" for m in measured]
            cells += [f"{100 * found[key]:.1f}" for key in ("false_alarms", "detected")]
        table.add_row(*cells)
    return table
