"""Commands that turn an encoder and labels into something that predicts. Results go to stdout, progress and errors to stderr."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console


def finetune(
    encoder: Path,
    /,
    *,
    train: str,
    test: str | None = None,
    out: Path,
    task: Literal["classify", "pairs", "tokens", "answers"] | None = None,
    column: str | None = None,
    second: str | None = None,
    label: str | None = None,
    labels: int | None = None,
    fraction: float | None = None,
    how: Literal["frozen", "full", "layerwise"] = "layerwise",
    layer_decay: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    augment: bool = True,
    flip: bool = True,
    scratch: bool = True,
    best: bool = False,
    max_bad: float = 0.01,
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Make a classifier from a pretrained encoder and labels, of which a few will do; `selfsup predict` uses it.

    Args:
        encoder: a run's folder, or an encoder folder.
        train: labelled data, as pretrain takes it; items without a class are left out and counted. Of text .tsv, .csv, .jsonl or
            .parquet with text and label, or two texts and label; .conllu; or .json in SQuAD's format.
        test: labelled data to measure it on, beside the same network from scratch.
        out: folder of the classifier.
        task: of text: classify, pairs (of texts), tokens (tags of words) or answers (spans of a passage); what the data are for when
            not given.
        column: of text, the column with the text, or the first one of a pair.
        second: of text, the column with the other text of a pair.
        label: of text, the column with the label; of .conllu upos, xpos, deprel or lemma, upos when not given.
        labels: labels of each class to learn from, drawn at random; all when not given.
        fraction: part of each class's labels instead, above 0 to 1.
        how: frozen (a linear layer on fixed vectors; of images solved exactly), full, or layerwise (rates fall towards the input).
        layer_decay: of layerwise: each block's rate as a fraction of the one above it; 0.75 when not given.
        epochs: passes over the labels; without epochs and steps 10, and at least 3,200 crops; of text 4, and at least 200 steps.
        steps: optimiser steps of 64 crops, or 32 rows of text.
        lr: peak learning rate; the best of 2e-4, 6e-4 and 2e-3 (of text 1e-4, 3e-4 and 1e-3) on held-out labels when not given.
        seeds: repetitions with other draws of labels; the first classifier is written.
        seed: of the first repetition.
        augment: of images, random crops and flips.
        flip: of images, whether a mirrored image keeps its class.
        scratch: with test data, train the same network from scratch as well.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup
    from selfsup.tasks.labels.finetune import as_table

    amount: dict[str, Any] = {"labels": labels, "fraction": fraction, "epochs": epochs, "steps": steps, "seeds": seeds, "seed": seed}
    kind: dict[str, Any] = {"how": how, "layer_decay": layer_decay, "lr": lr, "augment": augment, "flip": flip, "scratch": scratch}
    rest: dict[str, Any] = {"best": best, "max_bad": max_bad, "device": device, "quiet": quiet}
    text: dict[str, Any] = {"task": task, "column": column, "second": second, "label": label}
    about = selfsup.finetune(encoder, train, test, out=out, **text, **amount, **kind, **rest).config["finetuning"]
    if json_:
        print(json.dumps(about))
    else:
        Console().print(as_table(about))
        print(out)


def predict(
    classifier: Path, data: str, /, *, out: Path, column: str | None = None, second: str | None = None, max_bad: float = 0.01
) -> None:
    """Write the class of all items, and how likely it is; of text also scores, tags of words, or answers.

    Args:
        classifier: a folder that finetune has written.
        data: anything that pretrain takes; of text, what finetune takes, without labels or with.
        out: a .csv file; its columns are name, class and probability. Of text .tsv or .csv: text, predicted and probability.
        column: of text, the column with the text, or the first one of a pair.
        second: of text, the column with the other text of a pair.
        max_bad: largest fraction of unreadable files, 0 to 1.
    """
    import selfsup

    found = selfsup.predict(classifier, data, out=out, column=column, second=second, max_bad=max_bad)
    kinds = {name for one in found.classes for name in (one if isinstance(one, list) else [one])}
    print(f"{out}: {len(found.names)} items, {len(kinds)} different predictions")


def benchmark(
    encoder: Path,
    /,
    *,
    folder: Path,
    suite: Literal["glue", "clue"] | None = None,
    tasks: str | None = None,
    out: Path | None = None,
    fraction: float | None = None,
    how: Literal["frozen", "full", "layerwise"] = "layerwise",
    layer_decay: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    scratch: bool = False,
    best: bool = False,
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Score an encoder of text on GLUE or CLUE, from the official files in a folder: fine-tune it for every task, and average.

    Args:
        encoder: a run's folder, or an encoder folder.
        folder: a sub-folder for each task, such as CoLA/train.tsv and CoLA/dev.tsv, or afqmc_public/train.json; not all need be there.
        suite: glue or clue; what the folder holds when not given.
        tasks: names with commas; all when not given.
        out: a .json file, written after each task; what is in it is not done again.
        fraction: part of each task's training data, above 0 to 1.
        how: as of finetune.
        layer_decay: as of finetune.
        epochs: as of finetune.
        steps: as of finetune.
        lr: as of finetune.
        seeds: repetitions.
        seed: of the first repetition.
        scratch: train the same network from scratch as well.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup
    from selfsup.tasks.labels.benchmark import as_table

    names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    amount: dict[str, Any] = {"fraction": fraction, "epochs": epochs, "steps": steps, "seeds": seeds, "seed": seed}
    kind: dict[str, Any] = {"how": how, "layer_decay": layer_decay, "lr": lr, "scratch": scratch}
    rest: dict[str, Any] = {"best": best, "device": device, "quiet": quiet}
    result = selfsup.benchmark(encoder, folder, suite=suite, tasks=names, out=out, **amount, **kind, **rest)
    if json_:
        print(json.dumps(result))
    else:
        Console().print(as_table(result))


VERBS = (finetune, predict, benchmark)
