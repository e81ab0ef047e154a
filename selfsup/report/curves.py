"""metrics.jsonl as small curves: which there are, how to read them, and no more points than a screen shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfsup.report.numbers import real
from selfsup.report.run_contents import Run

POINTS = 300
"""Points of one curve on the page; where more were logged, one point stands for a stretch of them, with its range."""

LARGEST_EXTRA = 12
"""Curves of a method's own measures; the page names those beyond."""

KNOWN = {
    "loss": (
        "Loss",
        "number",
        "What the method minimises. Falling means that the hidden part is guessed better; its height cannot be compared between methods.",
    ),
    "lr": ("Learning rate", "small", "Climbs during the warm-up; a finished run with a cosine schedule ends near zero."),
    "items_per_second": ("Items per second", "compact", "Speed of the whole loop, data included. Dips are other work on the machine."),
    "gradient_norm": ("Gradient norm", "number", "Length of the gradient. Spikes are unstable steps: a smaller learning rate helps."),
    "information": (
        "Information",
        "number",
        "What a view is known to tell of its partner, in nats: a lower bound, never above the logarithm of the number of candidates. "
        "Where it comes near that, a larger batch or queue has more to teach.",
    ),
    "rankme": (
        "Effective rank (RankMe)",
        "number",
        "How many directions the vectors really use, from 1 to their width. Needs no labels; near 1 they have collapsed.",
    ),
    "deviation": (
        "Deviation",
        "number",
        "Spread of the vectors in each dimension: 1 fills the sphere, near 0 all images get the same vector.",
    ),
    "alignment": (
        "Alignment",
        "number",
        "Distance of two views of one image, 0 to 4: low is good, but only while uniformity is low too.",
    ),
    "match": (
        "Match",
        "percent",
        "Share of images whose second view is nearest to the first among 256. Falling means that the vectors forget what they saw.",
    ),
    "uniformity": ("Uniformity", "number", "How evenly the vectors fill their sphere: 0 is one single point, near −4 is spread out."),
    "knn_top1": (
        "kNN accuracy",
        "percent",
        "Share of images whose nearest neighbours name the right class. The labels are only watched, never trained on.",
    ),
}
"""Key in metrics.jsonl -> title, how its values are printed, and how to read it."""

NOT_FINITE = {"nan", "inf", "-inf"}
"""How values that JSON has no number for stand in metrics.jsonl."""

NOT_CURVES = {"step", "images", "seconds", "epoch", "progress", "warning"}


def curves(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """The curves of a run in the order of the page, and the names of those that did not fit.

    Returns:
        For each curve: key, title, format ("number", "small", "compact" or "percent"), meaning, and `x` (steps), `y`, `low`, `high`,
        lists of one length with None where the value was not finite.
    """
    keys = dict.fromkeys(key for line in run.metrics for key, value in line.items() if real(value) is not None)
    own = [key for key in keys if key not in KNOWN and key not in NOT_CURVES]
    drawn = []
    for key in [*KNOWN, *own[:LARGEST_EXTRA]]:
        logged = [(line["step"], line[key]) for line in run.metrics if _measured(line.get(key))]
        values = [real(value) for _, value in logged]
        broken = values.count(None)
        if len(values) == broken:
            continue
        title, form, meaning = KNOWN.get(key, (key[:1].upper() + key[1:].replace("_", " "), "number", "Logged by the method itself."))
        if broken:
            meaning += f" {broken:,} of {len(values):,} values are not finite and leave gaps."
        drawn.append({"key": key, "title": title, "format": form, "meaning": meaning, **thin([step for step, _ in logged], values)})
    return drawn, own[LARGEST_EXTRA:]


def thin(x: Sequence[int | float], y: Sequence[float | None], points: int = POINTS) -> dict[str, list[int] | list[float | None]]:
    """At most `points` points: each is the mean of an equal stretch of values, and carries its lowest and highest value.

    Args:
        x, y: of one length; None in y is a value that was not finite.

    Returns:
        x (whole steps), y, low and high, of one length. Where nothing had to be thinned, y, low and high are equal.
    """
    steps = np.array(x, dtype=np.float64)
    values = np.array([np.nan if value is None else value for value in y], dtype=np.float64)
    places: list[int] = []
    rows: list[tuple[float | None, ...]] = []
    for stretch in np.array_split(np.arange(len(values)), min(points, len(values))):
        known = values[stretch][~np.isnan(values[stretch])]
        places.append(round(float(steps[stretch].mean())))
        # A stretch without any value stays as a gap; its neighbours must not be joined across it.
        rows.append((known.mean(), known.min(), known.max()) if len(known) else (None, None, None))
    return {"x": places} | {name: [_short(row[i]) for row in rows] for i, name in enumerate(("y", "low", "high"))}


def _measured(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value in NOT_FINITE)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}") if abs(value) < 1e5 else float(round(value))


def trained(run: Run) -> dict[str, float | None]:
    """How far the run came: its last step, the images it saw, its seconds, and the images a second between them."""
    last = run.metrics[-1] if run.metrics else {}
    step, images, seconds = (real(last.get(key)) for key in ("step", "images", "seconds"))
    seconds = real(run.status.get("seconds")) if seconds is None else seconds
    rate = images / seconds if images and seconds else None
    return {"step": real(run.status.get("step")) or step, "images": images, "seconds": seconds, "rate": rate}


def warnings(run: Run) -> list[dict[str, Any]]:
    """Every different warning of the run once, in order: its text, its first and last step, and how often it came."""
    found: dict[str, dict[str, Any]] = {}
    for line in run.metrics:
        text = line.get("warning")
        if isinstance(text, str) and text:
            entry = found.setdefault(text, {"text": text, "first": line["step"], "times": 0})
            entry["last"] = line["step"]
            entry["times"] += 1
    return list(found.values())
