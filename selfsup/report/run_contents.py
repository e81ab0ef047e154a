"""A run folder as the page needs it: everything that is there, and in plain words what is not."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from selfsup.report.numbers import count, real, visible
from selfsup.report.page_files import Abilities, Sample, load_abilities, load_sample, load_views

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """The contents of a run folder; what could not be read is None or empty, and named in `missing`.

    Attributes:
        path: absolute.
        config: config.json.
        metrics: lines of metrics.jsonl in the order of their steps, each step as it was trained last.
        status: status.json.
        skipped: (name, reason) of every file that was left out; None where that is not recorded.
        evaluation: evaluation.json, None before `selfsup evaluate`.
        sample: page/sample.npz.
        views: page/views.npz, "original" first.
        abilities: page/abilities.npz; None also of a method that gives vectors only.
        missing: file -> why the page does without it.
    """

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    status: dict[str, Any]
    skipped: list[tuple[str, str]] | None
    evaluation: dict[str, Any] | None
    sample: Sample | None
    views: dict[str, np.ndarray] | None
    abilities: Abilities | None
    missing: dict[str, str]

    def recorded(self, *keys: str) -> Any:
        """An entry of config.json, such as `recorded("data", "items")`; None where it is missing."""
        return lookup(self.config, *keys)


def lookup(tree: Any, *keys: str) -> Any:
    """An entry of nested objects, None where a part of the way is missing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: the folder has no readable config.json, so that it is no run.
    """
    path = path.absolute()
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no run folder: expected a config.json that can be read, got: {error}; name the folder that "
            f"`selfsup pretrain` printed"
        ) from error
    attempt = Reader(path)
    metrics, unreadable = attempt("metrics.jsonl", _metrics, ([], 0), "not there: nothing was logged yet")
    if unreadable:
        attempt.missing["metrics.jsonl"] = f"{count(unreadable)} of its lines cannot be read and were left out"
    status = attempt("status.json", lambda run: read_json(run / "status.json"), {}, "not there: how far the run came is not known")
    skipped = attempt("skipped.csv", _skipped, None, "not there: which files were skipped is not known")
    evaluation = attempt("evaluation.json", lambda run: read_json(run / "evaluation.json"), None, "not there: not evaluated yet")
    sample = attempt("page/sample.npz", load_sample, None, "not there: no sample of the vectors was kept")
    views = attempt("page/views.npz", load_views, None, "not there: no examples of the views were kept")
    abilities = attempt("page/abilities.npz", load_abilities, None, "not there: the method gives vectors only")
    return Run(path, config, metrics, status, skipped, evaluation, sample, views, abilities, attempt.missing)


class Reader:
    """Reads the files of a folder one by one; `missing` says of each that could not be read why the page does without it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}

    def __call__(self, name: str, read: Callable[[Path], T], otherwise: T, absent: str) -> T:
        """What `read` finds in the folder, or `otherwise`; `absent` is said of a file that is not there."""
        try:
            return read(self.folder)
        except FileNotFoundError:
            self.missing[name] = absent
        except (OSError, ValueError, RecursionError) as error:
            self.missing[name] = f"damaged and cannot be read: {visible(str(error))}"
        return otherwise


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object, every text in it made printable.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"expected an object in {path.name}, got {type(value).__name__}")
    return _visible(value)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file, one a line, and how many lines hold none: a process that was killed leaves half a line."""
    lines: list[dict[str, Any]] = []
    unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = _visible(json.loads(text))
            except (ValueError, RecursionError):
                line = None
            if isinstance(line, dict):
                lines.append(line)
            else:
                unreadable += bool(text.strip())
    return lines, unreadable


def _visible(value: Any) -> Any:
    """The same value with every text in it made printable."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_visible(item) for item in value]
    if isinstance(value, dict):
        return {visible(key): _visible(item) for key, item in value.items()}
    return value


def _metrics(run: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many could not be read or say no step."""
    found, unreadable = read_lines(run / "metrics.jsonl")
    lines: list[dict[str, Any]] = []
    for line in found:
        step = real(line.get("step"))
        if step is None:
            unreadable += 1
            continue
        # A resumed run goes back to its checkpoint and trains these steps once more.
        if lines and lines[-1]["step"] > step:
            while lines and lines[-1]["step"] >= step:
                lines.pop()
        lines.append(line)
    return lines, unreadable


def _skipped(run: Path) -> list[tuple[str, str]]:
    with (run / "skipped.csv").open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            rows = [row for row in csv.reader(file) if row]
        except csv.Error as error:
            raise ValueError(str(error)) from error
    return [(visible(row[0]), visible(" ".join(row[1:]))) for row in rows[1:]]
