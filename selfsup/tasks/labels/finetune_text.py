"""`selfsup finetune` for text: from a pretrained encoder and labels to classes, scores, tags or answers; beside the same from scratch.

Reading order: `finetune_text`, then `TextWork.repeat` in `text_work.py`. What is asked of the text is in `text_tasks.py` and `answers.py`,
the training in `text_training.py`, the result in `text_model.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from selfsup.data.text.labelled import Labelled, Questions, Tagged, Texts, open_labelled, task_of
from selfsup.engine.log import Progress
from selfsup.evaluation.few_label import interval, wilson
from selfsup.tasks.labels.finetune_settings import DECAY, How
from selfsup.tasks.labels.text_model import TrainedText, save_text
from selfsup.tasks.labels.text_tasks import TextTask, only_labelled, task_for
from selfsup.tasks.labels.text_training import BATCH
from selfsup.tasks.labels.text_work import Budget, TextWork, Tuned, drawn
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, network_of

SHARES = ("accuracy", "exact_match")  # measures that count what is right


def finetune_text(
    trained: TrainedEncoder,
    train: Any,
    test: Any = None,
    *,
    out: Any,
    task: str | None = None,
    column: str | None = None,
    second: str | None = None,
    label: str | None = None,
    labels: int | None = None,
    fraction: float | None = None,
    how: How = "layerwise",
    layer_decay: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    scratch: bool = True,
    device: str = "auto",
    quiet: bool = False,
) -> TrainedText:
    """See `selfsup.tasks.labels.finetune.finetune`, which has checked the settings."""
    scratch = scratch and test is not None
    if scratch:
        network_of(trained.config)  # raises for a user's own module, before hours have passed
    columns: dict[str, Any] = {"column": column, "second": second, "label": label}
    examples, unlabelled = only_labelled(open_labelled(train, task, **columns))  # type: ignore[arg-type]
    asked = task_for(examples)
    tests, left_out = (None, 0) if test is None else only_labelled(open_labelled(test, task_of(examples), **columns))
    if tests is not None:
        check_test(asked, tests)
    draws = [drawn(asked, examples, labels, fraction, seed + k) for k in range(seeds)]
    if how == "layerwise":
        layer_decay = DECAY if layer_decay is None else layer_decay
    work = TextWork(
        trained,
        asked,
        examples,
        budget=Budget(epochs, steps),
        lr=lr,
        device=choose_device(device),
        progress=Progress(quiet=quiet),
    )
    work.rows  # noqa: B018  what cannot be laid out is said before the folder is made
    folder = empty_folder(out)
    to_test = {} if tests is None else {"test": tests}
    tuned = work.repeat(draws, seed, to_test, how, layer_decay or 1.0)
    fresh = work.repeat(draws, seed, to_test, "full", 1.0, from_scratch=True) if scratch else None
    work.progress.close()
    about: dict[str, Any] = {
        "task": task_of(examples),
        "how": how,
        "layer_decay": layer_decay,
        "labels": len(draws[0]),
        "labels_per_class": labels,
        "fraction": fraction,
        "classes": list(asked.classes),
        "train_items": len(examples),
        **{f"train_{name}": n for name, n in {"items_without_label": unlabelled, **work.rows.notes}.items() if n},
        "seeds": seeds,
        "seed": seed,
        "steps": work.budget.steps_for(len(work.rows.of(draws[0]))),
        "batch_size": BATCH,
        "tuned": summary(tuned, tests),
        "scratch": None if fresh is None else summary(fresh, tests),
    }
    if tests is not None:
        strangers = _strangers(asked, tests)
        notes = {"items_without_label": left_out, "items_of_classes_not_in_train": strangers, **tuned[0].notes["test"]}
        about |= {"test_items": len(tests), **{f"test_{name}": n for name, n in notes.items() if n}}
    network = tuned[0].network
    assert network is not None  # that of the first seed is kept
    assert trained.tokenizer is not None  # or this were no text
    save_text(folder, network, asked, {**trained.config, "finetuning": about}, about, trained.tokenizer)
    return TrainedText(folder, network=network.encoder if trained.config["encoder"]["name"] == "own" else None)


def check_test(task: TextTask, test: Labelled) -> None:
    """Raise ValueError where test data have no labels, or none that can be right."""
    if isinstance(test, Questions):
        if not any(q.answers for q in test.asked):
            raise ValueError(f"{test.source} has no answers to measure by; `selfsup predict` needs none")
        return
    if not len(test):
        raise ValueError(f"{test.source} has no labels to measure by; `selfsup predict` needs none")
    if task.classes and _strangers(task, test) == _labels_of(test).size:
        some = ", ".join(sorted(set(_labels_of(test).tolist()))[:5])
        raise ValueError(f"no label of {test.source} ({some}) is one that was learned ({', '.join(task.classes[:5])})")
    if not task.classes:
        for name in _labels_of(test):
            try:
                float(name)
            except ValueError:
                raise ValueError(f'{test.source}: "{name}" is no score, and scores were learned') from None


def _labels_of(data: Texts | Tagged) -> np.ndarray:
    found = data.labels if isinstance(data, Texts) else [tag for tags in data.tags for tag in tags]
    return np.array([name for name in found if name is not None], dtype=np.str_)


def _strangers(task: TextTask, test: Labelled) -> int:
    return 0 if isinstance(test, Questions) or not task.classes else int((~np.isin(_labels_of(test), task.classes)).sum())


def summary(tuned: Sequence[Tuned], test: Labelled | None) -> dict[str, Any]:
    """Scores with their 95 % intervals: Student's over seeds; of one seed Wilson's where independent items are counted, else none."""
    said: dict[str, Any] = {"learning_rates": [one.lr for one in tuned]}
    if test is None:
        return said
    measures = {}
    for name in tuned[0].scores["test"]:
        each = [one.scores["test"][name] for one in tuned]
        found: dict[str, Any] = {"mean": each[0], "low": None, "high": None}
        if len(each) > 1:
            found = _interval(each)
        elif name in SHARES and not isinstance(test, Tagged):  # words of a sentence are not independent
            found = wilson(round(each[0] * len(test)), len(test))._asdict()
        measures[name] = {**found, "each": each}
    return {"scores": measures, **said}


def _interval(each: list[float]) -> dict[str, float]:
    """Of scores from -1 to 1, correlations among them."""
    shifted = interval([(x + 1) / 2 for x in each])
    return {name: 2 * value - 1 for name, value in shifted._asdict().items()}


def as_table(about: Mapping[str, Any]) -> Table:
    """The result for a terminal, scores times 100."""
    kinds = {"classify": "texts", "pairs": "pairs", "tokens": "sentences", "answers": "questions"}
    what = kinds[about["task"]]
    said = [f"{about['labels']} {what} to learn from" + (f", {len(about['classes'])} classes" if about["classes"] else "")]
    if "test_items" in about:
        kind = "; mean and 95 % interval over the seeds" if about["seeds"] > 1 else ""
        said.append(f"{about['test_items']} {what} to measure by{kind}")
    words = {
        "items_without_label": "without a label were left out",
        "items_of_classes_not_in_train": "labels are of classes that were not learned, and count as wrong",
        "cut": "were cut to the encoder's length",
        "split": "were split to the encoder's length",
        "misplaced": "answers do not stand where the data say, and were not learned",
    }
    for part in ("train", "test"):
        said += [f"{part}: {about[f'{part}_{key}']} {word}" for key, word in words.items() if f"{part}_{key}" in about]
    rows = {f"this encoder, {_way(about)}": about["tuned"], "the same network, from scratch": about["scratch"]}
    shown = {name: row for name, row in rows.items() if row is not None}
    names = list(about["tuned"].get("scores", {}))
    between = {name for name in names if about["tuned"]["scores"][name]["low"] is not None}
    head = [x for name in names for x in [name.replace("_", " "), *(["interval"] if name in between else [])]]
    table = Table("", *head, "learning rate", caption="; ".join(said))
    for name, row in shown.items():
        cells = []
        for measure in names:
            at = row["scores"][measure]
            cells.append(f"{100 * at['mean']:.1f}")
            cells += [f"{100 * at['low']:.1f} to {100 * at['high']:.1f}"] if measure in between else []
        table.add_row(name, *cells, ", ".join(dict.fromkeys(f"{lr:g}" for lr in row["learning_rates"])))
    return table


def _way(about: Mapping[str, Any]) -> str:
    return about["how"] + (f" ({about['layer_decay']:g})" if about["layer_decay"] else "")
