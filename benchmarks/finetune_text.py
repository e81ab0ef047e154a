"""What pretraining is worth to text: a pretrained BERT against the same network from random start, on SST-2, UPOS tags and XQuAD.

    selfsup pretrain bert english.txt.gz --minutes 120 --out runs/bert
    python benchmarks/finetune_text.py runs/bert data/ --out results/finetune_text.jsonl

One line of JSON a training, and the curves as an SVG beside it. What stands in the file already is not done again.

Data: `sst2/{train,dev,test}.tsv` (sentence, label), `ud-ewt/{train,dev,test}.conllu.gz` and `xquad/en.json` in one folder.

Protocol: `selfsup finetune`'s own training, the same number of steps for both starts; from random start one rate for all layers, for the
pretrained network too, unless --how layerwise makes it smaller towards the input. The learning rate of each is the one of three with the
least loss on a fifth of the training data, found with the first seed. Scores are of the test sets after the last step, never of the best
one; curves are accuracies on the development sets on the way. Intervals are 95 %, Student's t over the seeds; the difference is paired by
seed. XQuAD has no training set: every fifth of its 48 articles is for testing, the other four for training (991 and 199 questions), so
that no passage is in both.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import announce, append_line, fits, read_lines, setting, table

import selfsup
from selfsup.data.text.labelled import Labelled, open_labelled
from selfsup.engine.checkpoint import read_json
from selfsup.engine.log import Progress
from selfsup.evaluation.few_label import t_quantile
from selfsup.tasks.labels.finetune_settings import DECAY
from selfsup.tasks.labels.text_tasks import TextTask, task_for
from selfsup.tasks.labels.text_training import TextNetwork, outputs_of
from selfsup.tasks.labels.text_work import Budget, TextWork
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_encoder import TrainedEncoder

TASKS = {"sst2": ("SST-2", "accuracy"), "upos": ("UPOS tags", "accuracy"), "xquad": ("XQuAD, English", "f1")}
STARTS = {"pretrained": "#0072b2", "random": "#d55e00"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of `selfsup pretrain bert`")
    parser.add_argument("data", type=Path, help="folder with sst2/, ud-ewt/ and xquad/")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=float, help="passes over the training data; 4 for SST-2 and UPOS, 5 for XQuAD by default")
    parser.add_argument("--lr", type=float, help="of every training; chosen for each task and start when not given")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the training data, for a quick look")
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--how", choices=["full", "layerwise"], default="full", help="of the pretrained network")
    parser.add_argument("--points", type=int, default=12, help="of a curve")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; the plot goes beside it")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    encoder = selfsup.load(arguments.run)
    same = {"run": str(arguments.run), "fraction": arguments.fraction, "given_lr": arguments.lr}
    starts = {
        "pretrained": {"start": "pretrained", "how": arguments.how, **same, "pretraining": pretraining(arguments.run)},
        "random": {"start": "random", "how": "full", **same},  # the same however long the other has been trained
    }
    for task in arguments.tasks:
        epochs = arguments.epochs or (5.0 if task == "xquad" else 4.0)
        for start in arguments.starts:
            compare(encoder, {"task": task, "epochs": epochs, **starts[start]}, arguments, facts)
    lines = [line for line in read_lines(arguments.out) if fits(line, starts[line["start"]])]
    table(summary(lines))
    if any(line["curve"] for line in lines):
        plot = arguments.out.with_suffix(".svg")
        plot.write_text(drawn(lines))
        print(f"plot in {plot}")


def pretraining(run: Path) -> dict[str, Any]:
    """How much the encoder has seen."""
    config, status = read_json(run / "config.json"), read_json(run / "status.json")
    return {
        "encoder": config["encoder"]["name"],
        "vocabulary": config["encoder"]["channels"],
        "length": config["encoder"]["text"]["length"],
        "steps": status["step"],
        "batch": config["training"]["batch_size"],
        "seconds": status["seconds"],
    }


def compare(encoder: TrainedEncoder, wanted: dict[str, Any], arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """All seeds of one start on one task that are not in the file."""
    task, how = wanted["task"], wanted["how"]
    done = [line for line in read_lines(arguments.out) if fits(line, wanted)]
    missing = [seed for seed in arguments.seeds if seed not in [line["seed"] for line in done]]
    if not missing:
        return
    train, dev, test = parts(arguments.data, task)
    kept = np.random.default_rng(0).permutation(len(train))[: round(arguments.fraction * len(train))]
    train = train.subset(np.sort(kept).tolist())
    asked, progress = task_for(train), Progress()
    work = TextWork(
        encoder, asked, train, budget=Budget(wanted["epochs"], None), lr=None, device=choose_device(arguments.device), progress=progress
    )
    every_one, fresh = np.arange(len(train)), wanted["start"] == "random"
    decay = DECAY if how == "layerwise" else 1.0
    name = f"{task}, {wanted['start']}"
    lr = arguments.lr or (done[0]["lr"] if done else work.choose(every_one, arguments.seeds[0], how, decay, name, from_scratch=fresh))
    steps = work.budget.steps_for(len(work.rows.ids))
    for seed in missing:
        curve: list[tuple[int, float]] = []

        def watch(step: int, network: TextNetwork, curve: list[tuple[int, float]] = curve) -> None:
            if dev is not None:
                curve.append((step, scores(network, asked, dev, work)[TASKS[task][1]]))

        said = f"{name}, seed {seed}, rate {lr:g}"
        every = max(1, steps // arguments.points)
        network = work.train_one(every_one, seed, how, decay, lr, said, from_scratch=fresh, watch=watch, every=every)
        line = {**wanted, "seed": seed, "steps": steps, "lr": lr, "train": len(train), "test": len(test)}
        append_line(arguments.out, {**line, **scores(network, asked, test, work), "curve": curve, **facts})
    progress.close()


def scores(network: TextNetwork, task: TextTask, data: Labelled, work: TextWork) -> dict[str, float]:
    """As `selfsup finetune` counts them."""
    rows = task.rows(data, work.tokenizer, work.length)
    outputs = outputs_of(network, rows, np.arange(len(rows.ids)), work.tokenizer.pad, device=work.device)
    return task.score(task.read(outputs, rows, data), data)


def parts(folder: Path, task: str) -> tuple[Any, Labelled | None, Labelled]:
    """Training, development and test data."""
    if task == "xquad":
        articles = json.loads((folder / "xquad" / "en.json").read_text(encoding="utf-8"))["data"]
        kept = {"data": [a for i, a in enumerate(articles) if i % 5 != 4]}
        return open_labelled(kept), None, open_labelled({"data": articles[4::5]})
    pattern = "sst2/{}.tsv" if task == "sst2" else "ud-ewt/{}.conllu.gz"
    train, dev, test = (open_labelled(folder / pattern.format(part)) for part in ("train", "dev", "test"))
    return train, dev, test


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and measure: both starts, and the difference paired by seed."""
    rows = []
    for task in TASKS:
        mine = [line for line in lines if line["task"] == task]
        for measure in ("exact_match", "f1") if task == "xquad" else ("accuracy", "macro_f1"):
            by_start = {start: {line["seed"]: line[measure] for line in mine if line["start"] == start} for start in STARTS}
            both = sorted(set(by_start["pretrained"]) & set(by_start["random"]))
            if both:
                row = {"task": TASKS[task][0], "measure": measure, "seeds": len(both)}
                for start in STARTS:
                    row[start] = reach([100 * by_start[start][seed] for seed in both])
                row["difference"] = reach([100 * (by_start["pretrained"][seed] - by_start["random"][seed]) for seed in both])
                rows.append(row)
    return rows or [{"task": "none done with all starts yet"}]


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean; 0 of a single value."""
    n = len(values)
    return t_quantile(0.95, n - 1) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else 0.0


def reach(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {half_width(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def drawn(lines: Sequence[dict[str, Any]]) -> str:
    """Accuracy on the development set over steps, a panel a task: the mean over the seeds, its interval as a band; without step 0."""
    shown = [task for task in TASKS if any(line["task"] == task and line["curve"] for line in lines)]
    left, top, wide, high, gap = 64, 44, 380, 300, 70
    width = left + len(shown) * (wide + gap) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + high + 84}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, task in enumerate(shown):
        x0 = left + number * (wide + gap)
        mine = [line for line in lines if line["task"] == task]
        curves = {start: [line["curve"][1:] for line in mine if line["start"] == start] for start in STARTS}
        every = [point for some in curves.values() for curve in some for point in curve]
        last = max(step for step, _ in every)
        low, most = (fn(100 * score for _, score in every) for fn in (min, max))
        grid = next(g for g in (1, 2, 5, 10, 20, 50) if most - low <= 6 * g)
        low, most = grid * np.floor(low / grid), grid * np.ceil(most / grid)
        seeds = max(map(len, curves.values()))

        def at(step: float, score: float, x0: int = x0, last: int = last, low: float = low, most: float = most) -> str:
            y = top + high * (most - min(most, max(low, 100 * score))) / (most - low)
            return f"{x0 + wide * step / last:.1f},{y:.1f}"

        parts.append(f'<text x="{x0}" y="24" font-size="15">{TASKS[task][0]}: accuracy on the development set, %</text>')
        parts.append(f'<text x="{x0 + wide / 2}" y="{top + high + 42}" text-anchor="middle">steps of fine-tuning, {seeds} seeds</text>')
        for value in np.arange(low, most + grid / 2, grid):
            y = float(at(0, value / 100).split(",")[1])
            parts.append(f'<path d="M{x0} {y}h{wide}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
        for step in (0, last // 2, last):
            x = at(step, 0).split(",")[0]
            parts.append(f'<text x="{x}" y="{top + high + 20}" text-anchor="middle">{step}</text>')
        for start, colour in STARTS.items():
            if curves[start]:
                steps = [step for step, _ in curves[start][0]]
                values = np.array([[score for _, score in curve] for curve in curves[start]])
                mean, half = values.mean(axis=0), [half_width(column) for column in values.T]
                above = [at(s, m + h) for s, m, h in zip(steps, mean, half, strict=True)]
                below = [at(s, m - h) for s, m, h in zip(steps, mean, half, strict=True)]
                parts.append(f'<polygon points="{" ".join([*above, *reversed(below)])}" fill="{colour}" opacity="0.2"/>')
                joined = " ".join(at(s, m) for s, m in zip(steps, mean, strict=True))
                parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (start, colour) in enumerate(STARTS.items()):
        x, y = left + 180 * number, top + high + 70
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/><text x="{x + 12}" y="{y}">{start} start</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
