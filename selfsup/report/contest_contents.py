"""The folder of a contest as its page needs it: who took part, what was measured, and in plain words what is not there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.report.numbers import count, head, real
from selfsup.report.run_contents import Reader, lookup, read_json, read_lines

LOOKS = 16
"""Looks that the style sheet holds: eight colours, each solid and dashed."""


class Measured(NamedTuple):
    """A mean over runs with its 95 % interval; one run has no interval."""

    mean: float
    low: float | None = None
    high: float | None = None

    def overlaps(self, other: "Measured") -> bool:
        """Whether the two intervals share a value; a figure without an interval overlaps nothing but itself."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return self.mean == other.mean
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Entrant:
    """A method of a contest.

    Attributes:
        id: as in the files.
        name: as the page prints it.
        key: what the page calls it; holds nothing that the files say.
        look, marker: how its lines and points are drawn.
    """

    id: str
    name: str
    key: str
    look: str
    marker: str


@dataclass(frozen=True)
class Contest:
    """The contents of a contest's folder; what could not be read is empty, and named in `missing`.

    Attributes:
        path: absolute.
        config: contest.json.
        entrants: in the order of contest.json, so that a method keeps its look while the contest goes on.
        runs: lines of results.jsonl by entrant and seed; of a run that was done twice the last.
        result: result.json.
        missing: file -> why the page does without it.
    """

    path: Path
    config: dict[str, Any]
    entrants: list[Entrant]
    runs: list[dict[str, Any]]
    result: dict[str, Any]
    missing: dict[str, str]

    def recorded(self, *keys: str) -> Any:
        """An entry of contest.json; None where it is missing."""
        return lookup(self.config, *keys)

    def runs_of(self, entrant: Entrant, state: str = "finished") -> list[dict[str, Any]]:
        """The runs of one method that ended so, by seed."""
        return [run for run in self.runs if run["method"] == entrant.id and run.get("state") == state]

    @property
    def expected(self) -> int | None:
        """Runs of the whole contest; None where contest.json does not say."""
        methods, seeds = self.config.get("methods"), real(self.config.get("seeds"))
        return len(set(map(str, methods))) * round(seeds) if isinstance(methods, list) and seeds else None


def read_contest(path: Path) -> Contest:
    """Read a contest's folder.

    Raises:
        ValueError: the folder has no readable contest.json, so that it is no contest.
    """
    path = path.absolute()
    try:
        config = read_json(path / "contest.json")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no contest: expected a contest.json that can be read, got: {error}; name the folder that `selfsup compare` printed"
        ) from error
    attempt = Reader(path)
    lines, unreadable = attempt("results.jsonl", _lines, ([], 0), "not there, so no run is done yet")
    runs: dict[tuple[str, float], dict[str, Any]] = {}
    for line in lines:
        method, seed = line.get("method"), real(line.get("seed"))
        if isinstance(method, str) and seed is not None:
            runs[method, seed] = line
        else:
            unreadable += 1
    if unreadable:
        attempt.missing["results.jsonl"] = f"{count(unreadable)} of its lines cannot be read and were left out"
    result = attempt("result.json", lambda folder: read_json(folder / "result.json"), {}, "not there, so nothing was summed up yet")
    methods, summed = config.get("methods"), result.get("methods")
    named = [method for method in methods if isinstance(method, str)] if isinstance(methods, list) else []
    ids = list(dict.fromkeys([*named, *(method for method, _ in runs), *(summed if isinstance(summed, dict) else ())]))
    ordered = [run for _, run in sorted(runs.items(), key=lambda item: (ids.index(item[0][0]), item[0][1]))]
    return Contest(path, config, [_entrant(method, i) for i, method in enumerate(ids)], ordered, result, attempt.missing)


def _lines(folder: Path) -> tuple[list[dict[str, Any]], int]:
    return read_lines(folder / "results.jsonl")


def _entrant(method: str, number: int) -> Entrant:
    look = number % LOOKS
    second = look >= LOOKS // 2
    return Entrant(method, head(method, 40), f"m{number}", f"m{look % (LOOKS // 2)}" + " dashed" * second, "square" if second else "circle")


def measured(stored: Any) -> Measured | None:
    """A figure of result.json: a number, or an object with its mean and perhaps its interval; None where there is none."""
    if isinstance(stored, dict):
        mean, low, high = (real(stored.get(name)) for name in Measured._fields)
        if mean is None:
            return None
        return Measured(mean) if low is None or high is None else Measured(mean, low, high)
    number = real(stored)
    return None if number is None else Measured(number)


def few_label(stored: Any) -> dict[int, Measured]:
    """Labels a class -> accuracy, in the order of the labels."""
    found = {}
    for key, entry in stored.items() if isinstance(stored, dict) else ():
        accuracy = measured(entry)
        if accuracy is not None and key.isascii() and key.isdigit() and len(key) < 10 and int(key) > 0:
            found[int(key)] = accuracy
    return dict(sorted(found.items()))
