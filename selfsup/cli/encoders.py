"""Commands that use and judge encoders. Results go to stdout, progress and errors to stderr."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from selfsup.methods import METHODS, describe


def embed(encoder: Path, data: str, /, *, out: Path, best: bool = False, max_bad: float = 0.01) -> None:
    """Write the vectors of all items.

    Args:
        encoder: a run's folder, or an encoder folder.
        data: anything that pretrain takes.
        out: vectors.npy (names beside it in vectors.names.txt) or vectors.parquet.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
    """
    import selfsup

    vectors = selfsup.embed(encoder, data, out=out, best=best, max_bad=max_bad)
    print(f"{out}: {vectors.shape[0]} vectors of {vectors.shape[1]}")


def evaluate(
    encoder: Path,
    /,
    *,
    train: str,
    test: str,
    protocol: str = "knn,linear,few-label",
    best: bool = False,
    seed: int = 0,
    scratch_images: int | None = None,
    flip: bool = True,
    max_bad: float = 0.01,
    column: str = "text",
    label: str = "label",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Say what an encoder is worth with labels, beside raw pixels or a bag of words, the same network untrained, and trained from scratch.

    Args:
        encoder: a run's folder, or an encoder folder.
        train: labelled data, as pretrain takes it; classes are the names of the sub-folders; of text also .tsv and .csv of text and class,
            and .jsonl and .parquet.
        test: labelled data of the same classes.
        protocol: any of knn, linear and few-label, with commas.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of the draws of few labels, the untrained network and the training from scratch.
        scratch_images: items that the training from scratch on all labels sees; 10 epochs when not given.
        flip: whether a mirrored image keeps its class, for the training from scratch.
        max_bad: largest fraction of unreadable files, 0 to 1.
        column: of tables of text, the column with the texts.
        label: of tables of text, the column with the classes.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    from selfsup.tasks.labels.evaluate import as_table
    from selfsup.tasks.labels.evaluate import evaluate as run_evaluation

    parts = tuple(p.strip() for p in protocol.split(",") if p.strip())
    rest: dict[str, Any] = {"best": best, "seed": seed, "scratch_images": scratch_images, "flip": flip, "max_bad": max_bad}
    rest |= {"column": column, "label": label}
    result = run_evaluation(encoder, train, test, protocol=parts, quiet=quiet, **rest)
    if json_:
        print(json.dumps(result))
    else:
        Console().print(as_table(result))


def compare(
    data: str | None = None,
    /,
    *,
    methods: str = "all",
    minutes: float | None = None,
    images: int | None = None,
    seeds: int = 3,
    test: str | None = None,
    out: Path | None = None,
    encoder: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
    resume: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Ask which method suits this data and this budget: the same budget for each, several seeds, one page.

    Args:
        data: images, vectors or tables as pretrain takes them, no text; its classes, where it has some, only score what was learned.
        methods: ids with commas between them, or all.
        minutes: budget: training time of a method, shared by its seeds.
        images: budget instead of minutes: items that each run sees, to the nearest whole step of its batches.
        seeds: runs of each method; 2 or more for intervals.
        test: labelled data to score on; without it a fifth of the labelled items of the data.
        out: the contest's folder; contest-TIME when not given.
        encoder: the network of all methods; each method's own when not given.
        image_size: side in pixels, as for pretrain.
        device: auto, cpu, cuda or cuda:N.
        resume: go on with this contest where it was.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"seeds": seeds, "test": test, "out": out, "encoder": encoder, "image_size": image_size, "device": device}
    contest = selfsup.compare(data, methods, minutes=minutes, images=images, resume=resume, quiet=quiet, **rest)
    if json_:
        print(json.dumps(contest.result))
    else:
        from selfsup.tasks.contest.compare import as_table

        Console().print(as_table(contest.result))
        print(*contest.result["advice"], sep="\n")
        print(contest.report)
    if not contest.result["ranking"]:
        raise SystemExit(1)  # every run failed, and the reasons stand above


def detect(
    run: Path | None = None,
    /,
    *,
    train: str | None = None,
    test: str,
    score: str | None = None,
    k: int = 5,
    false_alarms: float = 0.01,
    normal: str = "",
    held_out: str | None = None,
    out: Path | None = None,
    heatmaps: Path | None = None,
    best: bool = False,
    seed: int = 0,
    one_class: str | None = None,
    method: str = "autoencoder",
    steps: int | None = None,
    minutes: float | None = None,
    max_bad: float = 0.01,
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Say which items are strange beside normal ones: selfsup detect RUN --train NORMAL --test DATA.

    Or the one-class protocol, where each class in turn is normal and has its own run: selfsup detect --one-class LABELLED --test LABELLED.

    Args:
        run: a run's folder, or an encoder folder.
        train: normal data, as pretrain takes it.
        test: data to score; with classes, the scores are measured too.
        score: any of reconstruction, neighbours and both, with commas; all that the run can give when not given.
        k: neighbours among the normal items.
        false_alarms: wanted share of normal items that are flagged, 0 to 1.
        normal: classes that are normal, with commas; those of --train when not given.
        held_out: normal data that the run has not seen, for the threshold; a fifth of --train when not given.
        out: scores.csv with name, scores and flag; of the one-class protocol, the folder of its runs.
        heatmaps: folder for pictures of where the reconstruction errs, of the 100 strangest images.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of the draw of held-out items and of the intervals; of the runs.
        one_class: labelled data; --test then holds the same classes.
        method: of the one-class protocol, what to pretrain.
        steps: of the one-class protocol, how long each run trains: optimiser steps.
        minutes: of the one-class protocol, how long each run trains: wall time.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup
    from selfsup.tasks.search import detect as task
    from selfsup.tasks.search import one_class as protocol

    common: dict[str, Any] = {"score": score, "k": k, "seed": seed, "max_bad": max_bad, "device": device}
    if one_class is not None:
        if run is not None or train is not None or out is None:
            raise ValueError("--one-class DATA stands for a run and --train, and needs --out FOLDER for its runs")
        result = selfsup.one_class(one_class, test, method, out=out, steps=steps, minutes=minutes, quiet=quiet, **common)
        table = protocol.as_table(result)
    else:
        if run is None or train is None:
            raise ValueError("detect needs a run and normal data: selfsup detect RUN --train NORMAL --test DATA")
        more = {"false_alarms": false_alarms, "normal": normal, "held_out": held_out, "out": out, "heatmaps": heatmaps, "best": best}
        result = selfsup.detect(run, train, test, **more, **common).result
        table = task.as_table(result)
    if json_:
        print(json.dumps(result))
        return
    Console().print(table)
    for note in result.get("notes", ()):
        print(note)


def similar(
    encoder: Path,
    query: str,
    /,
    *,
    among: str | None = None,
    count: int = 10,
    best: bool = False,
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """What is nearest to an image, a text or a word; and what is to woman as king is to man: "king - man + woman".

    Args:
        encoder: a run's folder, or an encoder folder.
        query: an image or a folder of them; of text, a text in quotes, or a word, or an analogy as above.
        among: what to search, as pretrain takes it; not needed for words of word2vec.
        count: of answers.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
    """
    import selfsup
    from selfsup.tasks.search.similar import as_table

    found = selfsup.similar(encoder, query, among=among, count=count, best=best, max_bad=max_bad)
    if json_:
        print(json.dumps({answer.query: [[name, round(value, 6)] for name, value in answer.found] for answer in found}))
    else:
        Console().print(as_table(found))


def report(run: Path, /) -> None:
    """Build a run's page again.

    Args:
        run: a run's folder.
    """
    from selfsup.report import write_report

    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: no config.json in it; expected the folder of a run of `selfsup pretrain`")
    print(write_report(run))


def verify(path: Path, /) -> None:
    """Check every stored tensor against its checksum.

    Args:
        path: a run's folder, or an encoder folder.
    """
    from selfsup.tasks.saved.verify import verify as check

    for folder, tensors in check(path).items():
        print(f"{folder}: {tensors} tensors whole")


def methods(*, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List every method: what it hides, what it predicts, and its paper.

    Args:
        json_: print one JSON object a method.
    """
    facts = [describe(method) for method in METHODS]
    if json_:
        print(json.dumps([vars(f) for f in facts]))
        return
    from rich.table import Table

    table = Table("method", "data", "hidden", "predicted", "paper", show_lines=True)
    for f in facts:
        table.add_row(f.id, f.modality, f.hidden, f.predicted, f"{f.title}\n{f.paper}")
    Console().print(table)


VERBS = (embed, evaluate, compare, detect, similar, report, verify, methods)
"""In the order of `selfsup --help`."""
