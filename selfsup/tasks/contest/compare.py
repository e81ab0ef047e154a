"""`selfsup compare`: which method suits this data and this budget? The same budget for each, several seeds, one page.

A contest's folder: `contest.json` (what was asked), `runs/METHOD-SEED/` (ordinary runs), `results.jsonl` (a line a run), `result.json`
(means, intervals, ranking), `contest.html`. Whatever is there already is not done again.
"""

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Column, Table

from selfsup.engine.checkpoint import read_json, replace_file
from selfsup.engine.launch import run_alone
from selfsup.engine.log import Progress
from selfsup.engine.loop import Stopped
from selfsup.engine.signals import handling
from selfsup.evaluation.contest_statistics import summarise
from selfsup.locks import alone, locked
from selfsup.method import Recipe
from selfsup.tasks.contest.contest_plan import create_contest, fingerprints, open_part, options_of
from selfsup.tasks.contest.judge import Judge
from selfsup.tasks.pretraining.plan import default_encoder

SEEDS = 3
STOPPED = {130: 2, 75: 15}  # status of a run that a signal stopped -> the signal


@dataclass(frozen=True)
class Contest:
    """A contest, finished or not.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def result(self) -> dict[str, Any]:
        """Methods with means and intervals, "ranking", "advice": see `selfsup.evaluation.contest_statistics.summarise`."""
        return read_json(self.path / "result.json")

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "contest.html"


def compare(
    data: str | Path | np.ndarray | None = None,
    methods: str | Sequence[str] = "all",
    *,
    minutes: float | None = None,
    images: int | None = None,
    seeds: int = SEEDS,
    test: str | Path | None = None,
    out: str | Path | None = None,
    encoder: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
    resume: str | Path | None = None,
    quiet: bool = False,
) -> Contest:
    """Give each method the same budget, several seeds, and say which suits this data.

    Args:
        data: images, vectors or tables in files, as `pretrain` takes them, or an array; its classes, where it has some, only score what
            was learned.
        methods: ids with commas between them, or all that learn from such data.
        minutes: budget: training time of a method, shared by its seeds.
        images: budget instead of minutes: items that each run sees, to the nearest whole step of its batches.
        seeds: runs of each method; 2 or more for intervals.
        test: labelled data to score on; without it a fifth of the labelled items of the data, whose labels no method trains on.
        out: the contest's folder; contest-TIME when not given.
        encoder: the network of all methods; each method's own when not given.
        image_size: side in pixels, as for pretrain.
        device: auto, cpu, cuda or cuda:N.
        resume: go on with this contest where it was.
        quiet: no progress on stderr.

    Returns:
        The contest; a method that fails is named with its reason, and the others go on.

    Raises:
        ValueError: arguments that do not fit together or the data; another process holds this contest.
        Stopped: a signal came; the contest can be resumed.
    """
    progress = Progress(quiet=quiet)
    if resume is not None:
        folder = Path(resume)
        if not (folder / "contest.json").is_file():
            raise ValueError(f"{folder}: no contest.json in it; expected the folder of `selfsup compare`")
        given = {"data": data, "minutes": minutes, "images": images, "test": test, "out": out, "encoder": encoder, "image_size": image_size}
        asked = [name for name, value in given.items() if value is not None] + ["methods"] * (methods != "all")
        asked += ["seeds"] * (seeds != SEEDS) + ["device"] * (device != "auto")
        if asked:
            raise ValueError(f"{folder} knows what was asked; leave out {', '.join(asked)} beside resume, or begin another contest")
    else:
        if data is None:
            raise ValueError("compare needs data: a folder, an archive, an array ..., or resume=CONTEST")
        settings = {"encoder": encoder, "image_size": image_size, "device": device}
        folder = create_contest(data, methods, minutes=minutes, images=images, seeds=seeds, test=test, out=out, settings=settings)
    try:
        with _stoppable(), alone(folder, "holding this contest"):
            _hold(folder, progress)
    except Stopped:
        progress.say(f"stopped; go on with: selfsup compare --resume {shlex.quote(str(folder))}")
        raise
    return Contest(folder)


def _hold(folder: Path, progress: Progress) -> None:
    """All runs that are missing, and the page after each."""
    plan = read_json(folder / "contest.json")
    size = plan["data"]["image_size"]
    items = open_part(plan["data"]["source"], size)
    test = open_part(plan["test"], size, items) if plan["test"] else None
    found = fingerprints(items, test)
    if plan.get("fingerprints", found) != found:
        raise ValueError(
            f"{folder}: its data has changed since the contest began; put it back, or begin another contest with another --out"
        )
    judge = Judge(items, test)
    whole = "".join(json.dumps(row) + "\n" for row in read_rows(folder))
    replace_file(folder / "results.jsonl", whole.encode())  # without a line that was cut short, which the next would only lengthen
    missing = list(_missing(folder, plan))
    for method, seed in missing:
        progress.say(f"{method}, seed {seed}: {_budget(plan)}")
        _await_others(folder / "runs" / f"{method}-{seed}", progress)
        row = _run(folder, plan, method, seed, judge)
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        progress.say(_in_words(row))
        _write(folder, plan, judge)
    if not missing:
        _write(folder, plan, judge)


@contextmanager
def _stoppable() -> Iterator[None]:
    """A signal raises Stopped wherever it comes, as what is not written yet is done again; while a run trains, that run gets it."""

    def stop(number: int, _frame: Any) -> None:
        raise Stopped(number)

    with handling(stop, signal.SIGINT, signal.SIGTERM):
        yield


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of `results.jsonl`, the last of each run; one that a kill cut short is left out, and its run is looked at again."""
    path = folder / "results.jsonl"
    rows: dict[Any, dict[str, Any]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            rows[row["method"], row["seed"]] = row
        except (ValueError, TypeError, KeyError):
            continue
    return list(rows.values())


def _missing(folder: Path, plan: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Runs to do, also those that were killed; all methods once before any twice, so that an interrupted contest compares."""
    done = {(row["method"], row["seed"]) for row in read_rows(folder) if not row.get("killed")}
    for seed in range(plan["seeds"]):
        for method in plan["methods"]:
            if (method, seed) not in done:
                yield method, seed


def _await_others(run: Path, progress: Progress) -> None:
    """The training of a contest that was killed ends by itself, after its step and its checkpoint."""
    if not run.is_dir():
        return
    with locked(run, wait=False) as held:
        if held is not False:
            return
    progress.say("  waits until the training that the killed contest began has ended")
    with locked(run):
        pass


def _run(folder: Path, plan: Mapping[str, Any], method: str, seed: int, judge: Judge) -> dict[str, Any]:
    """Train in a process of its own, so that one's memory and faults are not another's; then measure."""
    run = folder / "runs" / f"{method}-{seed}"
    errors = folder / "runs" / f"{method}-{seed}.txt"
    if (run / "config.json").exists():
        arguments = ["--resume", str(run)]
    else:
        shutil.rmtree(run, ignore_errors=True)  # killed before it had begun
        arguments = [method, plan["data"]["source"], "--out", str(run), "--seed", str(seed), *options_of(plan, method)]
    errors.parent.mkdir(exist_ok=True)
    status, passed = run_alone([sys.executable, "-m", "selfsup", "pretrain", *arguments, "--quiet"], errors)
    if passed or status in STOPPED:
        raise Stopped(passed or STOPPED[status])
    row: dict[str, Any] = {"method": method, "seed": seed}
    if status < 0:
        why = ", as where memory runs out; selfsup compare --resume tries it again" if -status == signal.SIGKILL else ""
        return {**row, "state": "failed", "killed": True, "error": f"killed by {signal.Signals(-status).name}{why}"}
    if status != 0:
        said = errors.read_text(errors="replace").strip().splitlines()
        return {**row, "state": "failed", "error": said[-1].removeprefix("selfsup: ") if said else f"ended with status {status}"}
    try:
        return {**row, "state": "finished", "error": "", **judge.measure(run)}
    except (ValueError, RuntimeError, OSError) as error:
        return {**row, "state": "failed", "error": f"its vectors could not be scored: {error}"}


def _write(folder: Path, plan: Mapping[str, Any], judge: Judge) -> None:
    from selfsup.report import write_contest

    kept = folder / "baselines.json"
    try:
        baselines = json.loads(kept.read_text())
    except (OSError, ValueError):  # not there yet, or damaged
        baselines = judge.baselines(plan["encoder"] or default_encoder(Recipe(), judge.items))
        replace_file(kept, json.dumps(baselines).encode())
    tested = plan["evaluated_on"][1] if plan["evaluated_on"] else None
    result = summarise(read_rows(folder), plan["methods"], baselines, tested)
    replace_file(folder / "result.json", json.dumps(result, indent=1).encode())
    write_contest(folder)


def _budget(plan: Mapping[str, Any]) -> str:
    budget = plan["budget"]
    return f"{budget['minutes']:.3g} minutes" if "minutes" in budget else f"{budget['images']:,} items"


def _in_words(row: Mapping[str, Any]) -> str:
    if row["state"] != "finished":
        return f"  failed: {row['error']}"
    knn = f"kNN {100 * row['knn_top1']:.1f} %, " if row["knn_top1"] is not None else ""
    rank, lda = (f"{name} {row[key]:.1f}, " if row[key] is not None else "" for name, key in (("RankMe", "rankme"), ("LiDAR", "lidar")))
    return f"  {knn}{rank}{lda}{row['images_per_second']:.0f} items/s, {row['peak_mib']:.0f} MiB"


def as_table(result: Mapping[str, Any]) -> Table:
    """The ranking for a terminal: means over seeds, half of the 95 % interval beside the accuracies."""
    first = next((m for m in result["methods"].values() if m["few_label"]), None)
    counts = [n for n in ("10",) if first and n in first["few_label"]]
    caption = "means over seeds, 95 % intervals; 10 labels: of each class; LiDAR and the rest are on the page"
    failed = {method: found["error"] for method, found in result["methods"].items() if not found["runs"] and found["error"]}
    caption += "".join(f"\n{method} failed: {error}" for method, error in failed.items())
    columns = [
        Column(name, no_wrap=True) for name in ("", "kNN %", "linear %", *(f"{n} labels %" for n in counts), "RankMe", "items/s", "MiB")
    ]
    table = Table(*columns, box=SIMPLE, caption=caption, padding=(0, 1, 0, 0))
    for method in [*result["ranking"], *(m for m in result["methods"] if m not in result["ranking"])]:
        found = result["methods"][method]
        if not found["runs"]:
            table.add_row(method, "failed" if method in failed else "not run")
            continue
        few = [(found["few_label"] or {}).get(n) for n in counts]
        accuracies = [_with_interval(entry) for entry in (found["knn_top1"], found["linear_top1"], *few)]
        plain = [f"{found[name]['mean']:.0f}" if found[name] else "" for name in ("rankme", "images_per_second", "peak_mib")]
        table.add_row(method, *accuracies, *plain)
    for key, row in (result["baselines"] or {}).items():
        few = [row["few_label"].get(n) for n in counts]
        cells = [f"{100 * value:.1f}" if value is not None else "" for value in (row["knn_top1"], row["linear_top1"], *few)]
        table.add_row({"pixels_pca": "raw pixels, PCA", "untrained": "untrained network"}[key], *cells, style="dim")
    return table


def _with_interval(entry: Mapping[str, float | None] | None) -> str:
    if not entry or entry["mean"] is None:
        return ""
    reach = "" if entry["low"] is None or entry["high"] is None else f" ± {50 * (entry['high'] - entry['low']):.1f}"
    return f"{100 * entry['mean']:.1f}{reach}"
