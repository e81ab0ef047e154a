"""evaluation.json as a table, a plot and a verdict that claims nothing its intervals do not show."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from selfsup.report.numbers import labels, listing, percent, points, real
from selfsup.report.run_contents import Run, lookup

ROWS = {
    "encoder": ("This encoder", "trained without labels"),
    "pixels_pca": ("Raw pixels + PCA", "same width, nothing learned"),
    "bag_of_words": ("Bag of words", "TF-IDF of tokens, no network"),
    "untrained": ("Untrained network", "same network, random weights"),
    "scratch": ("Trained from scratch", "same network, these labels only"),
}
MARKERS = {"encoder": "circle", "pixels_pca": "diamond", "bag_of_words": "diamond", "untrained": "triangle", "scratch": "square"}
IN_A_SENTENCE = {
    "pixels_pca": "raw pixels with PCA",
    "bag_of_words": "a bag of words",
    "untrained": "the untrained network",
    "scratch": "the same network trained from scratch on those labels",
}
FULL = {"knn_top1": "kNN", "linear_top1": "Linear probe"}


class Measured(NamedTuple):
    """An accuracy, fraction of 1, with its 95 % interval."""

    mean: float
    low: float
    high: float


def accuracy(run: Run) -> dict[str, Any] | None:
    """Everything that the page says about accuracy; None where nothing was measured.

    Returns:
        `counts`: numbers of labels a class. `full`: names of the measures with all labels. `rows`: key, name, note, and one cell
        (text, interval, best) for each count and measure. `verdict`: sentences, the first is the headline. `plot`: rows with points.
        `focus`: the count that the headline is about. `protocol`: (name, value) pairs of how it was measured.
    """
    if run.evaluation is None:
        return None
    other = "pixels_pca" if "bag_of_words" in run.evaluation else "bag_of_words"  # text has the one, other data the other
    few = {key: _few_label(lookup(run.evaluation, key, "few_label")) for key in ROWS if key != other}
    full = {key: {name: real(lookup(run.evaluation, key, name)) for name in FULL} for key in few}
    counts = sorted({count for row in few.values() for count in row})
    measures = [name for name in FULL if any(row[name] is not None for row in full.values())]
    if not counts and not measures:
        return None
    focus = nearest_to_ten(few["encoder"] or counts)
    protocol = run.evaluation.get("protocol")
    return {
        "counts": counts,
        "full": [FULL[name] for name in measures],
        "rows": _table(few, full, counts, measures),
        "verdict": _verdict(few, full, focus, measures),
        "plot": [_drawn(key, row) for key, row in few.items() if row],
        "focus": focus,
        "protocol": [(key, value) for key, value in protocol.items() if value not in (None, [], {})] if isinstance(protocol, dict) else [],
    }


def _drawn(key: str, row: dict[int, Measured]) -> dict[str, Any]:
    points = [[count, *row[count]] for count in sorted(row)]
    return {"key": key, "look": key, "marker": MARKERS[key], "name": ROWS[key][0], "points": points}


def _few_label(stored: Any) -> dict[int, Measured]:
    """Labels a class -> accuracy, of the entries that are whole."""
    row = {}
    for key, entry in stored.items() if isinstance(stored, dict) else ():
        mean, low, high = (real(lookup(entry, name)) for name in Measured._fields)
        if mean is None or low is None or high is None:
            continue
        if key.isascii() and key.isdigit() and len(key) < 10 and int(key) > 0:
            row[int(key)] = Measured(mean, low, high)
    return row


def nearest_to_ten(counts: Iterable[int]) -> int | None:
    """Of several numbers of labels a class the one that a page speaks of: ten, or what is nearest to it."""
    return min(sorted(counts), key=lambda count: abs(math.log(count / 10)), default=None)


def _table(few: dict, full: dict, counts: list[int], measures: list[str]) -> list[dict[str, Any]]:
    best = {count: max(row[count].mean for row in few.values() if count in row) for count in counts}
    best |= {name: max(row[name] for row in full.values() if row[name] is not None) for name in measures}
    rows = []
    for key, (name, note) in ROWS.items():
        if key not in few:
            continue
        cells = [_cell(few[key].get(count), best[count]) for count in counts]
        cells += [_cell(None if (top1 := full[key][measure]) is None else (top1,), best[measure]) for measure in measures]
        rows.append({"key": key, "name": name, "note": note, "cells": cells})
    return rows


def _cell(measured: tuple[float, ...] | None, best: float) -> dict[str, Any]:
    if measured is None:
        return {"text": "–", "interval": "", "best": False}
    mean, *interval = measured
    bounds = f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}" if interval else ""
    return {"text": f"{100 * mean:.1f}", "interval": bounds, "best": mean == best}


def _verdict(few: dict, full: dict, focus: int | None, measures: list[str]) -> list[str]:
    """Sentences; the first one is the headline."""
    own = few["encoder"].get(focus)
    if focus is None or own is None:
        values = [f"{percent(full['encoder'][name])} ({FULL[name]})" for name in measures if full["encoder"][name] is not None]
        if not values:
            return ["The encoder itself was not measured, only what it is compared with."]
        return [f"With all labels this encoder reaches {listing(values)}.", "It was not measured with few labels."]
    sentences = [f"With {labels(focus)} per class, this encoder reaches {percent(own.mean)}."]
    there = [key for key in IN_A_SENTENCE if focus in few.get(key, ())]
    if not there:
        return [*sentences, "There is nothing to compare it with: no baseline was measured."]
    for word, side in (("above", 1), ("below", -1)):
        gaps = [
            f"{points(own.mean - few[key][focus].mean)} {word} {IN_A_SENTENCE[key]}" for key in there if _side(own, few[key][focus]) == side
        ]
        if gaps:
            sentences.append(f"That is {listing(gaps)}.")
    level = [IN_A_SENTENCE[key] for key in there if _side(own, few[key][focus]) == 0]
    if level:
        sentences.append(f"The intervals overlap with those of {listing(level)}: no difference was shown.")
    return [*sentences, *_elsewhere(few, focus)]


def _elsewhere(few: dict, focus: int) -> list[str]:
    """What the other counts of labels say, where they do not say the same."""
    sentences = []
    for key, name in IN_A_SENTENCE.items():
        shared = [count for count in sorted(few["encoder"]) if count in few.get(key, ()) and count != focus]
        below = [str(count) for count in shared if _side(few["encoder"][count], few[key][count]) < 0]
        if below:
            sentences.append(f"With {listing(below)} labels per class it is below {name}.")
    if len(sentences) == 0 and len(few["encoder"]) > 1:
        compared = [
            _side(few["encoder"][count], few[key][count])
            for key in few
            if key != "encoder"
            for count in few["encoder"]
            if count in few[key]
        ]
        if compared and min(compared) > 0:
            sentences.append("It is above all of them by more than the intervals at every number of labels.")
    return sentences


def _side(own: Measured, other: Measured) -> int:
    """1 where the whole interval lies above the other one, -1 below, 0 where they overlap."""
    return int(own.low > other.high) - int(own.high < other.low)
