"""The pictures of a contest as data: quality against time, few labels, measures without labels beside accuracy, speed and memory."""

import math
from typing import Any

import numpy as np

from selfsup.report.accuracy import MARKERS, nearest_to_ten
from selfsup.report.contest_contents import Contest, Entrant, Measured, few_label, measured
from selfsup.report.contest_table import BASELINES, COLUMNS, ranking
from selfsup.report.curves import KNOWN
from selfsup.report.numbers import count, real
from selfsup.report.run_contents import lookup

POINTS = 100
"""Points of one curve on the page; of longer ones evenly spaced points are kept, the last among them."""

LABEL_FREE = {"rankme": "RankMe", "alpha_req": "α-ReQ", "lidar": "LiDAR"}

Line = tuple[list[float], list[float]]


def race(contest: Contest) -> dict[str, Any] | None:
    """Quality against seconds of training: kNN accuracy where the labels were watched, else RankMe; None without any curve.

    Returns:
        `measure`, `title`, `format`; `lines`: of each method that has any key, look, marker, name, `runs` and their `mean` (x, y).
    """
    for measure in ("knn_top1", "rankme") if contest.recorded("labelled") is not False else ("rankme",):
        lines = []
        for entrant in contest.entrants:
            runs = [line for run in contest.runs_of(entrant) if (line := _curve(run.get("curve"), measure))[0]]
            if runs:
                x, y = _mean(runs)
                lines.append(_drawn(entrant) | {"runs": [{"x": run[0], "y": run[1]} for run in runs], "mean": {"x": x, "y": y}})
        if lines:
            return {"measure": measure, "title": KNOWN[measure][0], "format": KNOWN[measure][1], "lines": lines}
    return None


def _curve(stored: Any, measure: str) -> Line:
    """Seconds and values of one run, of the points that have both."""
    points: dict[float, float] = {}
    for entry in stored if isinstance(stored, list) else ():
        seconds, value = real(lookup(entry, "seconds")), real(lookup(entry, measure))
        if seconds is not None and value is not None and seconds >= 0:
            points[_short(seconds)] = _short(value)
    kept = sorted(points.items())
    if len(kept) > POINTS:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, POINTS).round().astype(int)]
    return [x for x, _ in kept], [y for _, y in kept]


def _mean(runs: list[Line]) -> Line:
    """The mean of several runs: what had been reached after so many seconds, so a run that has ended keeps its last value.

    It goes from the mean of their first points to the mean of their last ones.
    """
    first, last = (float(np.mean([run[0][i] for run in runs])) for i in (0, -1))
    x = np.unique([first, last, *(seconds for run in runs for seconds in run[0] if first < seconds < last)])
    y = np.mean([np.interp(x, *run) for run in runs], axis=0)
    return [_short(value) for value in x.tolist()], [_short(value) for value in y.tolist()]


def few(contest: Contest) -> dict[str, Any] | None:
    """Accuracy against labels a class, of the methods in their order and then the baselines; None where it was not measured."""
    rows = [
        _drawn(entrant) | {"points": _points(few_label(lookup(contest.result, "methods", entrant.id, "few_label")))}
        for entrant in dict.fromkeys([*ranking(contest), *contest.entrants])
    ]
    for key, (name, _) in BASELINES.items():
        points = _points(few_label(lookup(contest.result, "baselines", key, "few_label")))
        rows.append({"key": key, "look": key, "marker": MARKERS[key], "name": name, "points": points})
    rows = [row for row in rows if row["points"]]
    counts = sorted({point[0] for row in rows for point in row["points"]})
    return {"plot": rows, "counts": counts, "focus": nearest_to_ten(counts)} if rows else None


def _points(row: dict[int, Measured]) -> list[list[Any]]:
    return [[number, *figure] for number, figure in row.items()]


def agreement(contest: Contest) -> list[dict[str, Any]]:
    """For each label-free measure the runs as points (measure, kNN accuracy, entrant, seed), and in words how well it ranks them."""
    plots = []
    for key, title in LABEL_FREE.items():
        points = []
        for number, entrant in enumerate(contest.entrants):
            for run in contest.runs_of(entrant):
                x, y = real(run.get(key)), real(run.get("knn_top1"))
                if x is not None and y is not None:
                    points.append([_short(x), _short(y), number, run["seed"]])
        if points:
            rho = real(lookup(contest.result, "agreement", key, "rho"))
            runs = round(real(lookup(contest.result, "agreement", key, "runs")) or 0)
            methods = len({point[2] for point in points})
            plots.append({"key": key, "title": title, "points": points, "rho": rho, "words": in_words(title, rho, runs, methods)})
    return plots


def in_words(title: str, rho: float | None, runs: int, methods: int) -> str:
    """What a rank correlation says, and whether it says anything of other methods than these."""
    if rho is None or runs < 3:
        return "Too few runs to say whether it ranks them as accuracy does."
    if abs(rho) < 0.4:
        said = f"{title} says little about which of these runs is more accurate."
    else:
        often = "nearly throughout" if abs(rho) >= 0.8 else "more often than not"
        good = f"{title} nearer to 1" if title == LABEL_FREE["alpha_req"] else f"Higher {title}"
        said = f"{good} went with {'higher' if rho > 0 else 'lower'} accuracy {often}."
    said = f"Rank correlation {f'{rho:+.2f}'.replace('-', '−')} over {count(runs)} runs. {said}"
    # Runs of one method are alike, so it is methods that count. About 5 % of unrelated rankings of n reach 1.96 / sqrt(n - 1).
    if abs(rho) >= 0.4 and (methods < 3 or abs(rho) < 1.96 / math.sqrt(methods - 1)):
        said += f" With {count(methods)} methods, that can be chance: do not expect it of others."
    return said


def bars(contest: Contest) -> list[dict[str, Any]]:
    """Speed and memory, and what the budget did not fix, as bars; of each measure the methods that have it, the best first.

    Returns:
        title, note, and `bars`: key, look, name, text, interval, and as per cent of the widest bar `length`, `low`, `high`.
    """
    by_time = real(contest.recorded("budget", "minutes")) is not None
    cost = {
        "images_per_second": ("Speed, images per second", "The whole loop, data included. More is better."),
        "peak_mib": ("Peak memory, MiB", "Less is better."),
        "images": ("Images seen", "What each method made of the same time."),
        "seconds": ("Seconds of a run", "What each method needed for the same images."),
    }
    del cost["seconds" if by_time else "images"]
    groups = []
    for key, (title, note) in cost.items():
        column = COLUMNS[key]
        figures = [(e, figure) for e in contest.entrants if (figure := measured(lookup(contest.result, "methods", e.id, key)))]
        figures.sort(key=lambda pair: pair[1].mean, reverse=column.better >= 0)
        widest = max((max(figure.mean, figure.high or 0.0) for _, figure in figures), default=0.0)
        if widest > 0:
            groups.append({"title": title, "note": note, "bars": [_bar(*pair, column.printed, widest) for pair in figures]})
    return groups


def _bar(entrant: Entrant, figure: Measured, printed: Any, widest: float) -> dict[str, Any]:
    shares = {name: None if value is None else f"{100 * max(value, 0.0) / widest:.2f}" for name, value in figure._asdict().items()}
    interval = "" if figure.low is None or figure.high is None else f"{printed(figure.low)}–{printed(figure.high)}"
    return _drawn(entrant) | {"text": printed(figure.mean), "interval": interval, "length": shares["mean"], **shares}


def _drawn(entrant: Entrant) -> dict[str, Any]:
    return {"key": entrant.key, "look": entrant.look, "marker": entrant.marker, "name": entrant.name}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
