"""`selfsup benchmark`: GLUE or CLUE over local files: fine-tune an encoder for each task, score it as the benchmark does, and average."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from selfsup.data.text.glue import SUITES, Sheet, Suite, open_sheet, suite_in
from selfsup.data.text.labelled import Labelled, Questions, Tagged, Texts, task_of
from selfsup.engine.checkpoint import read_json, replace_file
from selfsup.engine.log import Progress
from selfsup.evaluation import text_scores
from selfsup.evaluation.few_label import interval
from selfsup.tasks.labels.finetune_settings import DECAY, How, check_settings
from selfsup.tasks.labels.text_tasks import Said, only_labelled, task_for
from selfsup.tasks.labels.text_work import Budget, TextWork, Tuned, drawn
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, network_of


def benchmark(
    encoder: str | Path | TrainedEncoder,
    folder: str | Path,
    *,
    suite: Suite | None = None,
    tasks: Sequence[str] | None = None,
    out: str | Path | None = None,
    fraction: float | None = None,
    how: How = "layerwise",
    layer_decay: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    scratch: bool = False,
    best: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Fine-tune an encoder for every task of a benchmark and score it on the development sets, with the benchmark's measures.

    A task's score is the mean of its measures, and of its development sets; that of the benchmark the mean over its tasks, WNLI among
    them. The average is over the tasks that are there, which are named, as are those that are not.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave; of text.
        folder: of the benchmark: a sub-folder for each task, with the official files.
        suite: glue or clue; what the folder holds when not given.
        tasks: names of some tasks; all when not given.
        out: a .json file for the result, written after each task; tasks that are in it already are not done again.
        fraction, how, layer_decay, epochs, steps, lr, seeds, seed, best, device, quiet: as of `selfsup.finetune`.
        scratch: train the same network from scratch as well.

    Returns:
        What JSON can hold: "tasks", each with "scores" and "score"; "missing", by task why; "average" and, if asked, "scratch_average".

    Raises:
        ValueError: no such folder, task or suite; settings that contradict each other or those that `out` was written with.
        BadDataError: a file is another one than the official.
    """
    check_settings(how, None, fraction, layer_decay, epochs, steps, lr, seeds)
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    if trained.tokenizer is None:
        raise ValueError(f"GLUE and CLUE are of text, and this encoder ({trained.config['encoder']['name']}) takes other data")
    if scratch:
        network_of(trained.config)  # raises for a user's own module, before hours have passed
    folder = Path(folder)
    suite = suite_in(folder) if suite is None else suite
    wanted = _names(suite, tasks)
    sheets = {name: open_sheet(folder, suite, name) for name in wanted}  # a bad file is said before anything is trained
    settings = {
        "suite": suite,
        "encoder": _fingerprint(trained),
        "fraction": fraction,
        "how": how,
        "layer_decay": DECAY if layer_decay is None and how == "layerwise" else layer_decay,
        "epochs": epochs,
        "steps": steps,
        "lr": lr,
        "seeds": seeds,
        "seed": seed,
        "scratch": scratch,
    }
    if all(isinstance(sheet, str) for sheet in sheets.values()):
        said = ", ".join(f"{name} ({why})" for name, why in sheets.items())
        raise ValueError(f"{folder}: nothing of {suite.upper()} in it: {said}")
    done = _done(out, settings)
    result: dict[str, Any] = {}
    progress = Progress(quiet=quiet)
    for name, sheet in sheets.items():
        if isinstance(sheet, Sheet) and name not in done:
            progress.say(f"{name}: {len(sheet.train):,} to learn from")
            done[name] = _run(name, sheet, trained, settings, choose_device(device), progress)
        result = _result(settings, done, sheets)
        if out is not None:
            replace_file(Path(out), json.dumps(result, indent=1).encode())
    progress.close()
    return result


def _names(suite: Suite, tasks: Sequence[str] | None) -> list[str]:
    known = {name.lower(): name for name in SUITES[suite]}
    for name in tasks or ():
        if name.lower() not in known:
            raise ValueError(f"{suite.upper()} has no task {name}; there are {', '.join(known.values())}")
    return list(known.values()) if tasks is None else [known[name.lower()] for name in tasks]


def _run(name: str, sheet: Sheet, trained: TrainedEncoder, settings: Mapping[str, Any], device: Any, progress: Progress) -> dict[str, Any]:
    train, unlabelled = only_labelled(sheet.train)
    tests = {test: only_labelled(data)[0] for test, data in sheet.tests.items()}
    task = task_for(train)
    seed, seeds, how = settings["seed"], settings["seeds"], settings["how"]
    budget = Budget(settings["epochs"], settings["steps"])
    work = TextWork(trained, task, train, budget=budget, lr=settings["lr"], device=device, progress=progress)
    draws = [drawn(task, train, None, settings["fraction"], seed + k) for k in range(seeds)]
    tuned = work.repeat(draws, seed, tests, how, settings["layer_decay"] or 1.0)
    fresh = work.repeat(draws, seed, tests, "full", 1.0, from_scratch=True) if settings["scratch"] else None
    measures = SUITES[settings["suite"]][name].measures
    return {
        "task": task_of(train),
        "train_items": len(draws[0]),
        "test_items": {test: len(data) for test, data in tests.items()},
        "left_out": sheet.left_out + unlabelled,
        "steps": budget.steps_for(len(work.rows.of(draws[0]))),
        **scored(tuned, tests, measures),
        "scratch": None if fresh is None else scored(fresh, tests, measures),
    }


def scored(tuned: Sequence[Tuned], tests: Mapping[str, Labelled], measures: Sequence[str]) -> dict[str, Any]:
    """The benchmark's scores of a task: each measure on each development set, and their mean, over the seeds."""
    scores: dict[str, Any] = {}
    for test, data in tests.items():
        for measure in measures:
            name = measure if len(tests) == 1 else f"{measure} {test}"
            each = [measured(measure, one.said[test], data) for one in tuned]
            scores[name] = {"mean": sum(each) / len(each), "each": each}
    means = [sum(at["each"][k] for at in scores.values()) / len(scores) for k in range(len(tuned))]
    found: dict[str, Any] = {"mean": means[0], "low": None, "high": None}
    if len(means) > 1:
        between = interval([(x + 1) / 2 for x in means])  # of scores from -1 to 1
        found = {key: 2 * value - 1 for key, value in between._asdict().items()}
    return {"scores": scores, "score": {**found, "each": means}, "learning_rates": [one.lr for one in tuned]}


def measured(measure: str, said: Said, data: Labelled) -> float:
    """One of the benchmark's measures, as a fraction of 1; a correlation with what never changes is 0."""
    assert not isinstance(data, Tagged)  # no benchmark here has tags
    if isinstance(data, Questions):
        chinese = [
            text_scores.exact_match(value, [text for text, _ in q.answers], "zh") for value, q in zip(said.values, data.asked, strict=True)
        ]
        return sum(chinese) / len(chinese)
    return _of_texts(measure, said, data)


def _of_texts(measure: str, said: Said, data: Texts) -> float:
    true: list[Any] = list(data.labels)
    values: list[Any] = said.values
    if measure in ("pearson", "spearman"):
        true = [float(x) for x in true]
    if measure == "f1":
        true, values = [int(x == "1") for x in true], [int(x == "1") for x in values]
    found = getattr(text_scores, measure)(values, true)
    return 0.0 if found != found else found  # NaN


def _result(settings: Mapping[str, Any], done: Mapping[str, Any], sheets: Mapping[str, Sheet | str]) -> dict[str, Any]:
    layouts = SUITES[settings["suite"]]
    there = {name: done[name] for name in layouts if name in done}
    missing = {name: sheets.get(name, "not asked for") for name in layouts if name not in there}
    result: dict[str, Any] = {
        "settings": dict(settings),
        "tasks": there,
        "missing": {name: why if isinstance(why, str) else "not done yet" for name, why in missing.items()},
        "average": None,
        "scratch_average": None,
    }
    if there:
        result["average"] = sum(task["score"]["mean"] for task in there.values()) / len(there)
        if settings["scratch"]:
            result["scratch_average"] = sum(task["scratch"]["score"]["mean"] for task in there.values()) / len(there)
    return result


def _done(out: str | Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    if out is None:
        return {}
    if Path(out).suffix != ".json":
        raise ValueError(f"{out}: expected a name that ends in .json")
    if not Path(out).exists():
        return {}
    before = read_json(Path(out))
    other = [key for key, value in settings.items() if before.get("settings", {}).get(key) != value]
    if other:
        raise ValueError(f"{out} holds results of another {', another '.join(other)}; choose another --out")
    return dict(before["tasks"])


def _fingerprint(trained: TrainedEncoder) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in trained.network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def as_table(result: Mapping[str, Any]) -> Table:
    """The result for a terminal, scores times 100."""
    suite, there, missing = result["settings"]["suite"], result["tasks"], result["missing"]
    said = "scores on the development sets, times 100"
    if missing:
        said += "; missing: " + ", ".join(f"{name} ({why})" for name, why in missing.items())
    scratch = result["settings"]["scratch"]
    table = Table("task", "measures", "score", *(["from scratch"] if scratch else []), "learned from", caption=said)
    for name, task in there.items():
        measures = ", ".join(f"{measure.replace('_', ' ')} {100 * at['mean']:.1f}" for measure, at in task["scores"].items())
        score = [_with_reach(part["score"]) for part in (task, task["scratch"]) if part is not None]
        table.add_row(name, measures, *score, f"{task['train_items']:,}")
    if there:
        table.add_section()
        means = [result["average"], *([result["scratch_average"]] if scratch else [])]
        of = f"{suite.upper()}, " + (f"{len(there)} of {len(there) + len(missing)} tasks" if missing else "all tasks")
        table.add_row(of, "", *(f"{100 * mean:.1f}" for mean in means), "")
    return table


def _with_reach(at: Mapping[str, Any]) -> str:
    return f"{100 * at['mean']:.1f}" + ("" if at["low"] is None else f" ({100 * at['low']:.1f} to {100 * at['high']:.1f})")
