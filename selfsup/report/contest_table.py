"""The ranking as a table: every measure with its interval, nothing called better whose interval overlaps."""

from collections.abc import Callable
from typing import Any, NamedTuple

from selfsup.report.accuracy import ROWS, nearest_to_ten
from selfsup.report.contest_contents import Contest, Entrant, Measured, few_label, measured
from selfsup.report.numbers import compact, count, head, labels, real
from selfsup.report.run_contents import lookup

BASELINES = {key: (ROWS[key][0], note) for key, note in (("pixels_pca", "nothing learned"), ("untrained", "random weights"))}


class Column(NamedTuple):
    """A measure: its title, the group it stands in, whether more (1), less (-1) or neither (0) is better, how it is printed."""

    title: str
    group: str
    better: int
    printed: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else count(value)


COLUMNS = {
    "knn_top1": Column("kNN", "Accuracy, %", 1, _percent),
    "linear_top1": Column("Linear probe", "Accuracy, %", 1, _percent),
    "few_label": Column("Few labels", "Accuracy, %", 1, _percent),
    "rankme": Column("RankMe", "Needs no labels", 1, _number),
    "alpha_req": Column("α-ReQ", "Needs no labels", 0, _number),
    "lidar": Column("LiDAR", "Needs no labels", 1, _number),
    "images_per_second": Column("Images/s", "Cost", 1, count),
    "peak_mib": Column("Peak MiB", "Cost", -1, count),
    "images": Column("Images seen", "Cost", 0, compact),
    "seconds": Column("Seconds", "Cost", 0, _number),
}


ALIKE = 1.05
"""Largest ratio of what two methods spent of a budget that the page calls the same."""


def table(contest: Contest) -> dict[str, Any] | None:
    """The ranking; None before anything was summed up.

    Returns:
        `groups`: (title, number of columns). `columns`: titles. `rows`: best first, those without figures last; each with key, look, name,
        rank ("" for what is not ranked), notes, and either `cells` (text, interval, best) or `error`.
    """
    summed = contest.result.get("methods")
    if not isinstance(summed, dict) or not summed:
        return None
    focus = nearest_to_ten({number for entry in summed.values() for number in few_label(lookup(entry, "few_label"))})
    figures = {entrant.key: _figures(summed.get(entrant.id), focus) for entrant in contest.entrants}
    stored = {key: lookup(contest.result, "baselines", key) for key in BASELINES}
    baselines = {key: found for key, entry in stored.items() if (found := _figures(entry, focus))}
    fixed = "seconds" if real(contest.recorded("budget", "minutes")) is not None else "images"  # the same for all: that was the budget
    all_rows = [*figures.values(), *baselines.values()]
    there = {name for row in all_rows for name in row}
    spent = [row[fixed].mean for row in figures.values() if fixed in row]
    alike = not spent or max(spent) <= ALIKE * min(spent)  # a budget below one step of a method cannot be kept
    columns = {name: column for name, column in COLUMNS.items() if name in there and not (name == fixed and alike)}
    if contest.recorded("data", "kind") != "image":
        columns = {name: column._replace(title=column.title.replace("Images", "Items")) for name, column in columns.items()}
    if "few_label" in columns and focus is not None:
        columns["few_label"] = columns["few_label"]._replace(title=labels(focus))
    best = {name: _best(column, [row[name] for row in all_rows if name in row]) for name, column in columns.items()}

    def cells(row: dict[str, Measured]) -> list[dict[str, Any]]:
        return [_cell(column, row.get(name), best[name]) for name, column in columns.items()]

    ranked = ranking(contest)
    ordered = [*ranked, *(entrant for entrant in contest.entrants if entrant not in ranked)]
    by = "knn_top1" if contest.result.get("ranked_by") == "knn_top1" else "rankme"
    certain = all((figure := figures[entrant.key].get(by)) and figure.low is not None for entrant in ranked)
    rows = [_row(contest, entrant, ranked, certain) | _outcome(contest, entrant, figures[entrant.key], cells) for entrant in ordered]
    for key, row in baselines.items():
        # Where accuracy ranks, a baseline stands where it would have come in: what is below it learned nothing of use.
        own = row.get(by) if by == "knn_top1" else None
        below = (i for i, other in enumerate(rows) if "error" in other or (own and other["knn"] and other["knn"].mean < own.mean))
        name, note = BASELINES[key]
        entry = {"key": key, "look": key, "name": name, "rank": "", "notes": [note], "knn": own, "cells": cells(row)}
        rows.insert(next(below, len(rows)), entry)
    groups: dict[str, int] = {}
    for column in columns.values():
        groups[column.group] = groups.get(column.group, 0) + 1
    return {"groups": list(groups.items()), "columns": [column.title for column in columns.values()], "rows": rows}


def ranking(contest: Contest) -> list[Entrant]:
    """The methods that result.json ranks, best first."""
    stored = contest.result.get("ranking")
    by_id = {entrant.id: entrant for entrant in contest.entrants}
    known = [method for method in stored if isinstance(method, str) and method in by_id] if isinstance(stored, list) else []
    return [by_id[method] for method in dict.fromkeys(known)]


def _figures(entry: Any, focus: int | None) -> dict[str, Measured]:
    """Measure -> figure, of those that there are."""
    found = {name: measured(lookup(entry, name)) for name in COLUMNS if name != "few_label"}
    found["few_label"] = few_label(lookup(entry, "few_label")).get(focus or 0)
    return {name: figure for name, figure in found.items() if figure is not None}


def _best(column: Column, figures: list[Measured]) -> Measured | None:
    return max(figures, key=lambda figure: column.better * figure.mean, default=None) if column.better else None


def _cell(column: Column, figure: Measured | None, best: Measured | None) -> dict[str, Any]:
    if figure is None:
        return {"text": "–", "interval": "", "best": False}
    interval = "" if figure.low is None or figure.high is None else f"{column.printed(figure.low)}–{column.printed(figure.high)}"
    return {"text": column.printed(figure.mean), "interval": interval, "best": best is not None and figure.overlaps(best)}


def _row(contest: Contest, entrant: Entrant, ranked: list[Entrant], certain: bool) -> dict[str, Any]:
    """What stands before the figures of a method; `certain`: every method that is ranked has an interval."""
    level = contest.result.get("tied_with_best")
    level = level if isinstance(level, list) else []
    rank = ranked.index(entrant) + 1 if entrant in ranked else None
    notes = []
    if rank == 1 and contest.result.get("ranked_by") != "knn_top1":
        notes.append("first by the mean rank of measures without labels")
    elif rank == 1:
        notes.append("best" if certain and not set(map(str, level)) - {entrant.id} else "ahead on average")
    elif rank and entrant.id in level:
        notes.append("level with the best")
    finished, failed = (len(contest.runs_of(entrant, state)) for state in ("finished", "failed"))
    if failed:
        notes.append(f"{count(failed)} of {count(finished + failed)} runs failed")
    return {"key": entrant.key, "look": entrant.look, "name": entrant.name, "rank": "" if rank is None else str(rank), "notes": notes}


def _outcome(contest: Contest, entrant: Entrant, row: dict[str, Measured], cells: Callable[[dict[str, Measured]], Any]) -> dict[str, Any]:
    """The cells of a method, or why it has none."""
    if row:
        return {"knn": row.get("knn_top1"), "cells": cells(row)}
    error = lookup(contest.result, "methods", entrant.id, "error")
    if isinstance(error, str) and error:
        return {"error": f"failed: {head(error, 400)}"}
    return {"error": "failed, no reason recorded" if contest.runs_of(entrant, "failed") else "no run is done yet"}
