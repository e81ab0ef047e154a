"""The command line: parse, call, print. Results go to stdout, progress and errors to stderr."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from selfsup import __version__
from selfsup.methods import METHODS, describe

STATUSES = """Exit statuses: 0 done; 1 failed; 2 wrong use; 3 too many unreadable files; 4 stored tensors damaged; 5 loss not finite; \
6 out of memory; 75 stopped by SIGTERM or SIGUSR1, saved, can be resumed; 130 stopped by Ctrl-C, saved."""

app = App(
    name="selfsup",
    help="Learn from unlabelled data: hide a part of the input, predict it, keep the encoder.",
    help_epilogue=STATUSES,
    version=f"selfsup {__version__}",
    result_action="return_value",
)
pretrain_app = App(
    name="pretrain", help="Train an encoder on data without labels: selfsup pretrain METHOD DATA.", result_action="return_value"
)
app.command(pretrain_app)


@pretrain_app.default
def resume_run(*, resume: Path, allow_data_change: bool = False, quiet: bool = False) -> None:
    """Train an encoder on data without labels: selfsup pretrain METHOD DATA, or go on with --resume RUN.

    Args:
        resume: a run's folder; it goes on exactly where it was.
        allow_data_change: resume although the data has changed.
        quiet: no progress on stderr.
    """
    from selfsup.tasks.pretrain import pretrain

    _print_run(pretrain(resume=resume, allow_data_change=allow_data_change, quiet=quiet).path)


def _print_run(run: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun, every process comes here
        print(run)


@app.command
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


@app.command
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
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Say what an encoder is worth with labels, beside raw pixels, the same network untrained, and trained from scratch.

    Args:
        encoder: a run's folder, or an encoder folder.
        train: labelled data, as pretrain takes it; classes are the names of the sub-folders.
        test: labelled data of the same classes.
        protocol: any of knn, linear and few-label, with commas.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of the draws of few labels, the untrained network and the training from scratch.
        scratch_images: items that the training from scratch on all labels sees; 10 epochs when not given.
        flip: whether a mirrored image keeps its class, for the training from scratch.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    from selfsup.tasks.evaluate import as_table
    from selfsup.tasks.evaluate import evaluate as run_evaluation

    parts = tuple(p.strip() for p in protocol.split(",") if p.strip())
    rest: dict[str, Any] = {"best": best, "seed": seed, "scratch_images": scratch_images, "flip": flip, "max_bad": max_bad}
    result = run_evaluation(encoder, train, test, protocol=parts, quiet=quiet, **rest)
    if json_:
        print(json.dumps(result))
    else:
        Console().print(as_table(result))


@app.command
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
        data: as pretrain takes it; its classes, where it has some, only score what was learned.
        methods: ids with commas between them, or all.
        minutes: budget: training time of a method, shared by its seeds.
        images: budget instead of minutes: items that each run sees.
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
        from selfsup.tasks.compare import as_table

        Console().print(as_table(contest.result))
        print(*contest.result["advice"], sep="\n")
        print(contest.report)


@app.command
def report(run: Path, /) -> None:
    """Build a run's page again.

    Args:
        run: a run's folder.
    """
    from selfsup.report import write_report

    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: no config.json in it; expected the folder of a run of `selfsup pretrain`")
    print(write_report(run))


@app.command
def verify(path: Path, /) -> None:
    """Check every stored tensor against its checksum.

    Args:
        path: a run's folder, or an encoder folder.
    """
    from selfsup.tasks.verify import verify as check

    for folder, tensors in check(path).items():
        print(f"{folder}: {tensors} tensors whole")


def _print_pictures(written: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(written.as_json()))
    else:
        print(written)


@app.command
def denoise(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    clean: str | None = None,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Take the noise from pictures, with a run of neighbor2neighbor or another method that can.

    Args:
        run: a run's folder.
        data: noisy pictures, as pretrain takes them.
        out: folder for as many PNGs under the same names; new or empty.
        clean: the same pictures without noise, to print PSNR and SSIM before and after.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.denoise(run, data, out=out, clean=clean, **rest), json_)


@app.command
def inpaint(
    run: Path,
    data: str,
    /,
    *,
    mask: str,
    out: Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Fill a region of every picture from what is around it.

    Args:
        run: a run's folder, of a method that fills regions.
        data: pictures, as pretrain takes them.
        mask: what is hidden: centre; random; or a picture, or pictures of the same names, in which white is hidden.
        out: folder for as many PNGs under the same names; new or empty.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.inpaint(run, data, mask=mask, out=out, **rest), json_)


@app.command
def colorize(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Give gray pictures colours.

    Args:
        run: a run's folder, of a method that gives colours.
        data: pictures, as pretrain takes them; of those with colours only the gray values are used.
        out: folder for as many PNGs under the same names; new or empty.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.colorize(run, data, out=out, **rest), json_)


@app.command
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
    from selfsup.tasks import detect as task
    from selfsup.tasks import one_class as protocol

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


@app.command
def compress(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    prior: bool = False,
    best: bool = False,
    beside: Annotated[bool, Parameter(negative="--no-beside")] = True,
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Write a set of images into one file, as the codes of a run that quantises; the same run reads it again.

    Args:
        run: a run's folder, of vqvae for instance.
        data: images, as pretrain takes them; each keeps its size.
        out: the file, such as photos.ssc.
        prior: count bits by the run's prior over codes: smaller and slower.
        best: the best checkpoint by the label-free measure instead of the last; decompress then needs the same.
        beside: say also what JPEG and WebP make of a sample of the images with as many bytes.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
    """
    from selfsup.tasks.compress import as_table
    from selfsup.tasks.compress import compress as write

    found = write(run, data, out=out, prior=prior, best=best, beside=beside, max_bad=max_bad)
    if json_:
        print(json.dumps(found))
    else:
        Console().print(as_table(found))


@app.command
def decompress(run: Path, file: Path, /, *, out: Path, best: bool = False) -> None:
    """Write the images of a file that compress made.

    Args:
        run: the run's folder that it was made with.
        file: what compress wrote.
        out: a new folder, for a PNG of each image (.npy where it has neither 1 nor 3 channels).
        best: as it was given to compress.
    """
    import selfsup

    print(f"{out}: {len(selfsup.decompress(run, file, out=out, best=best))} images")


@app.command
def generate(
    run: Path,
    data: str | None = None,
    /,
    *,
    out: Path,
    what: str | None = None,
    count: int = 64,
    seed: int = 0,
    best: bool = False,
    max_bad: float = 0.01,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Let a trained method make samples, interpolations between items, and reconstructions: image grids and arrays.

    Args:
        run: a run's folder.
        data: items to interpolate between and to reconstruct, as pretrain takes them.
        out: an empty or new folder.
        what: samples, interpolations, reconstructions, with commas; all that the method can when not given.
        count: samples, items to reconstruct, and frames of interpolations (8 a row).
        seed: of the noise and of the draw of items.
        best: the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        quiet: nothing on stderr.
    """
    import selfsup
    from selfsup.tasks.generate import in_words

    kinds = None if what is None else [name.strip() for name in what.split(",") if name.strip()]
    rest: dict[str, Any] = {"count": count, "seed": seed, "best": best, "max_bad": max_bad, "device": device, "quiet": quiet}
    print(in_words(selfsup.generate(run, data, out=out, what=kinds, **rest), out))


@app.command
def finetune(
    encoder: Path,
    /,
    *,
    train: str,
    test: str | None = None,
    out: Path,
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
        train: labelled data, as pretrain takes it; items without a class are left out and counted.
        test: labelled data to measure it on, beside the same network from scratch.
        out: folder of the classifier.
        labels: labels of each class to learn from, drawn at random; all when not given.
        fraction: part of each class's labels instead, above 0 to 1.
        how: frozen (a linear layer on fixed vectors, solved exactly), full, or layerwise (rates fall towards the input).
        layer_decay: of layerwise: each block's rate as a fraction of the one above it; 0.75 when not given.
        epochs: passes over the labels; without epochs and steps 10, and at least 3,200 crops.
        steps: optimiser steps of 64 crops.
        lr: peak learning rate; the best of 2e-4, 6e-4 and 2e-3 on held-out labels when not given.
        seeds: repetitions with other draws of labels; the first classifier is written.
        seed: of the first repetition.
        augment: random crops and flips.
        flip: whether a mirrored image keeps its class.
        scratch: with test data, train the same network from scratch as well.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup
    from selfsup.tasks.finetune import as_table

    amount: dict[str, Any] = {"labels": labels, "fraction": fraction, "epochs": epochs, "steps": steps, "seeds": seeds, "seed": seed}
    kind: dict[str, Any] = {"how": how, "layer_decay": layer_decay, "lr": lr, "augment": augment, "flip": flip, "scratch": scratch}
    rest: dict[str, Any] = {"best": best, "max_bad": max_bad, "device": device, "quiet": quiet}
    about = selfsup.finetune(encoder, train, test, out=out, **amount, **kind, **rest).config["finetuning"]
    if json_:
        print(json.dumps(about))
    else:
        Console().print(as_table(about))
        print(out)


@app.command
def predict(classifier: Path, data: str, /, *, out: Path, max_bad: float = 0.01) -> None:
    """Write the class of all items, and how likely it is.

    Args:
        classifier: a folder that finetune has written.
        data: anything that pretrain takes.
        out: a .csv file; its columns are name, class and probability.
        max_bad: largest fraction of unreadable files, 0 to 1.
    """
    import selfsup

    found = selfsup.predict(classifier, data, out=out, max_bad=max_bad)
    print(f"{out}: {len(found.names)} items, {len(set(found.classes))} classes among them")


@app.command
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


def main() -> None:
    """Entry point: every expected failure is one line on stderr and a status of its own."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        _load_method(arguments)
        app(arguments, exit_on_error=False, error_console=errors)
    except CycloptsError:
        return 2  # cyclopts has said what was wrong
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        status, text = _status_of(error)
        print(f"selfsup: {text}", file=sys.stderr)
        return status
    return 0


def _load_method(arguments: list[str]) -> None:
    """Register the method that is asked for, so that only then its file, and torch, are imported."""
    if not arguments or arguments[0] != "pretrain":
        return
    words = [a for a in arguments[1:] if not a.startswith("-")]
    if len(arguments) > 1 and not arguments[1].startswith("-"):
        describe(words[0])  # an unknown method ends here, with the nearest name
        from selfsup.cli_method import method_command

        _register(method_command(words[0], _print_run), words[0])
    else:
        for method in METHODS:
            _register(_stub(method), method)


def _register(command: Callable[..., None], method: str) -> None:
    if method in list(pretrain_app):  # `run` may be called more than once in a process
        del pretrain_app[method]
    pretrain_app.command(command, name=method)


def _stub(method: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = describe(method).title
    return command


def _status_of(error: Exception) -> tuple[int, str]:
    """Exit status and one line; what nobody expected keeps its traceback, in a file."""
    by_name: dict[str, int] = {"BadDataError": 3, "DamagedError": 4, "NotFiniteError": 5, "OutOfMemoryError": 6, "MemoryError": 6}
    for cls in type(error).__mro__:
        if cls.__name__ in by_name:
            return by_name[cls.__name__], str(error)
    if type(error).__name__ == "Stopped":
        number = error.signal_number  # type: ignore[attr-defined]
        return (130 if number == 2 else 75), f"{error}: saved; go on with `selfsup pretrain --resume RUN`"
    if type(error).__name__ == "WorkersFailedError":
        return error.status, str(error)  # type: ignore[attr-defined]
    if isinstance(error, ValueError):
        return 2, str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{error.strerror or error}"
    return 1, _crash(error)


def _crash(error: Exception) -> str:
    import tempfile
    import traceback

    if os.environ.get("SELFSUP_TRACEBACK"):
        traceback.print_exception(error)
    with tempfile.NamedTemporaryFile("w", prefix="selfsup-crash-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"{type(error).__name__}: {error} (this is a fault of selfsup; what happened is in {file.name})"
