"""The main job: from items without labels to an encoder, its vectors, and a page that says what they are worth."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from selfsup.data import Items, Loader, open_data
from selfsup.data.text.texts import open_text
from selfsup.data.text.tokenizer import KINDS, Tokenizer, load_tokenizer
from selfsup.distributed import is_parallel, rank, world_size
from selfsup.engine.checkpoint import read_json, steps_saved
from selfsup.engine.launch import join_group, launched, supervise
from selfsup.engine.log import Progress
from selfsup.engine.loop import fit
from selfsup.method import Method, Recipe
from selfsup.methods import describe, method_class
from selfsup.tasks.pretraining.beside_pca import write_beside_pca
from selfsup.tasks.pretraining.dry_run import rehearse
from selfsup.tasks.pretraining.monitor import make_monitor
from selfsup.tasks.pretraining.page_data import write_page_data
from selfsup.tasks.pretraining.plan import build_method, choose_device, in_words, make_config, open_again, training_of
from selfsup.tasks.pretraining.run_folders import new_run_folder, write_config
from selfsup.tasks.pretraining.start import Start, started
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, save_encoder


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        path: the run's folder.
    """

    path: Path

    @property
    def encoder(self) -> TrainedEncoder:
        """The encoder, as `selfsup.load(path)` gives it."""
        return load(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """What was trained, on what and how."""
        return read_json(self.path / "config.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"


def pretrain(
    data: Any = None,
    method: str = "simclr",
    *,
    out: str | Path | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    encoder: str | nn.Module | None = None,
    start: str | Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    tokenizer: str | None = None,
    vocabulary_size: int | None = None,
    min_count: int | None = None,
    sequence_length: int | None = None,
    column: str = "text",
    documents: Literal["blank_lines", "file"] = "blank_lines",
    lowercase: bool | None = None,
    lr: float | None = None,
    optimizer: Literal["adamw", "sgd", "lars"] | None = None,
    weight_decay: float | None = None,
    accumulate: int = 1,
    micro_batch: int | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    checkpoint_minutes: float = 5.0,
    workers: int | None = None,
    max_bad: float = 0.01,
    cache: bool = True,
    resume: str | Path | None = None,
    allow_data_change: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train an encoder on items without labels.

    Args:
        data: a folder, .zip, .tar, .npy, .npz, parquet or .csv, a table's classes as table.csv?label=COLUMN; for methods of text .txt,
            .jsonl, .parquet or .conllu (.gz too), or a folder of them; from Python also an array (N, H, W, C) uint8, a Dataset, a list of
            paths or of texts, or what `selfsup.data` opened.
        method: one of `selfsup methods`.
        out: the run's folder; runs/METHOD-TIME when not given.
        epochs: how long: passes over the data. Without epochs, steps or minutes: a million items, at most 200 epochs; of word2vec, 5.
        steps: how long: optimiser steps.
        minutes: how long: wall time; the learning rate comes down as time runs out.
        batch_size: items in a step, over all processes; the method's own when not given.
        encoder: small, resnet18, resnet34, resnet50, vit_tiny, vit_small, vit_base, dcgan, unet, mlp, table or stack; for text bert_tiny,
            bert_mini, bert_small, bert_medium, bert_base, gpt_nano, gpt_mini or gpt2, and words_N for N numbers a word; the method's own
            when not given; from Python also a module.
        start: a run or an encoder folder whose encoder is trained further, by the same method or another; its network, tokenizer, columns
            and size of images are taken over.
        image_size: side in pixels; the median short side, at most 64, when not given (224 for ResNets and ViTs, 256 where
            nothing is resized).
        channels: 1 for gray, 3 for colour; what the images have when not given.
        tokenizer: wordpiece, bpe, character or word to learn one from the text, or a tokenizer.json; the method's own when not given.
        vocabulary_size: most tokens of a tokenizer that is learned; BERT's has 30,522, GPT-2's 50,257; the method's own when not given:
            8,192, of word2vec a million.
        min_count: a word that occurs less often is no token of a tokenizer that is learned; the method's own when not given: 2, of
            word2vec 5.
        sequence_length: tokens in an item of text; the method's own when not given.
        column: of JSON and parquet that holds the text.
        documents: what ends a document in plain text: blank_lines, or only the end of its file, so that no character is lost.
        lowercase: fold case in a tokenizer that is learned, and of wordpiece take accents off; only wordpiece does when not given.
        lr: peak learning rate; the method's own, scaled to the batch size, when not given.
        optimizer: adamw, sgd or lars; the method's own when not given.
        weight_decay: pull of weights towards zero; the method's own when not given.
        accumulate: parts that a batch is split into to save memory, each with a loss of its own.
        micro_batch: saves memory under one loss over the whole batch: so many views go through the encoder at a time, with batch
            statistics of their own, and once more for the gradient.
        seed: of the initial weights, the order of the data and the views.
        device: auto, cpu, cuda or cuda:N.
        devices: processes that train together, one a GPU (or several on the CPU).
        precision: bf16 where the machine is fast at it (auto), or always fp32 or bf16.
        checkpoint_minutes: wall time between checkpoints.
        workers: processes that decode; the number of cores when not given.
        max_bad: largest fraction of unreadable files, 0 to 1; more of them stop the run.
        cache: decode once into a memory-mapped cache; otherwise files are decoded each time they are shown.
        resume: go on with this run, exactly where it was.
        allow_data_change: resume although the data has changed.
        dry_run: say what would be done, draw the views, and end.
        quiet: no progress on stderr.
        options: the method's own.

    Returns:
        The run; of a dry run, its plan and the picture of the views only.

    Raises:
        ValueError: arguments that do not fit together, the data or the method; another process is training the run that is resumed.
        BadDataError: too many unreadable files.
        NotFiniteError: the loss was NaN or infinite.
        Stopped: a signal came; the run has been saved.
    """
    join_group()
    progress = Progress(quiet=quiet or rank() > 0)
    if resume is not None:
        return _go_on(Path(resume), data, None if isinstance(encoder, str) else encoder, allow_data_change, progress)
    if data is None:
        raise ValueError("pretrain needs data: a folder, an archive, an array ..., or resume=RUN")
    if devices < 1:
        raise ValueError(f"--devices must be at least 1, got {devices}")
    processes = world_size() if is_parallel() else devices
    if method_class(method).on_cpu and device not in ("auto", "cpu"):
        raise ValueError(f"{method} trains on the processor, by a kernel of its own, got --device {device}; leave it out")
    where = choose_device("cpu" if method_class(method).on_cpu else device)
    one_of_several = device != "auto" and where.index is not None
    if one_of_several and processes > 1:
        raise ValueError(
            f"--device {device} is one GPU, but {processes} processes were asked for, each with its own; leave out one of the two"
        )
    begun = None
    if start is not None:
        begun = Start(start, method, encoder=encoder, image_size=image_size, channels=channels, tokenizer=tokenizer)
        image_size, channels = begun.image_size, begun.channels
    settings: dict[str, Any] = {"cache": cache, "max_bad": max_bad, "workers": workers}
    largest = 224 if isinstance(encoder, str) and encoder.startswith(("resnet", "vit")) else 64
    if not method_class(method).resizes:
        settings["shrink"], largest = False, 256
    say = _decoding(progress)
    items = data
    if not isinstance(data, Items) and describe(method).modality == "text":
        cls = method_class(method)
        length = sequence_length or cls.recipe.sequence_length
        if begun is not None:
            length = begun.length(sequence_length, cls.recipe.sequence_length)
        settings = {"layout": cls.layout(options), "length": length, "column": column, "documents": documents, "max_bad": max_bad}
        learned = {"vocabulary_size": vocabulary_size, "min_count": min_count, "lowercase": lowercase}
        words = _words(cls.recipe, tokenizer if begun is None else begun.tokenizer, learned)
        items = open_text(data, progress=say, **words, **settings)
    elif not isinstance(data, Items):
        if begun is not None and begun.value_range:
            settings["value_range"] = begun.value_range
        table = None if begun is None else begun.table
        items = open_data(data, image_size=image_size, largest=largest, channels=channels, table=table, progress=say, **settings)
    config = make_config(
        items,
        method,
        options,
        encoder=encoder,
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        recipe={"lr": lr, "optimizer": optimizer, "weight_decay": weight_decay},
        seed=seed,
        devices=processes,
        precision=precision,
        device=where if one_of_several else torch.device(where.type),  # any GPU will do, also where the run goes on
        accumulate=accumulate,
        micro_batch=micro_batch,
        checkpoint_minutes=checkpoint_minutes,
        settings=settings,
    )
    if begun is not None:
        config = begun.taken_over(config, items)
    network = None if isinstance(encoder, str) else encoder
    if dry_run:
        return Run(rehearse(config, items, network if begun is None else started(config), where, out))
    run = _create(out, method, config, items)
    return _start(run, config, items, network, progress)


def _create(out: str | Path | None, method: str, config: dict[str, Any], items: Items) -> Path:
    from selfsup.distributed import broadcast_text

    run = ""
    if rank() == 0:
        folder = new_run_folder(out, method)
        write_config(folder, config)
        with (folder / "skipped.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "reason"), *((s.name, s.reason) for s in items.skipped)])
        if items.tokenizer is not None:
            items.tokenizer.save(folder / "tokenizer.json")
        run = str(folder)
    return Path(broadcast_text(run))


def _words(recipe: Recipe, tokenizer: str | Tokenizer | None, learned: dict[str, Any]) -> dict[str, Any]:
    """What `open_text` is told of the tokenizer; `learned` has what was asked of one that is learned, None for what was not."""
    tokenizer = tokenizer or recipe.tokenizer
    asked = [f"--{name.replace('_', '-')}" for name, value in learned.items() if value is not None]
    if asked and tokenizer not in KINDS:
        known = "--start brings its own" if isinstance(tokenizer, Tokenizer) else f"{tokenizer} is one already"
        raise ValueError(f"{', '.join(asked)}: for a tokenizer that is learned from the text, but {known}; leave out one or the other")
    of_recipe = {"vocabulary_size": recipe.vocabulary_size, "min_count": recipe.min_count, "lowercase": None}
    return {"tokenizer": tokenizer, **{name: of_recipe[name] if value is None else value for name, value in learned.items()}}


def _go_on(run: Path, data: Any, network: nn.Module | None, allow_change: bool, progress: Progress) -> Run:
    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: no config.json in it; expected the folder of a run of `selfsup pretrain`")
    config = read_json(run / "config.json")
    if config["encoder"]["name"] == "own" and network is None:
        raise ValueError(f"{run}: its encoder is your own module; go on from Python: selfsup.pretrain(resume=..., encoder=module)")
    tokenizer = load_tokenizer(run) if "text" in config["encoder"] else None
    items = open_again(config, data, tokenizer=tokenizer, allow_change=allow_change, progress=_decoding(progress))
    return _start(run, config, items, network, progress)


def _start(run: Path, config: dict[str, Any], items: Items, network: nn.Module | None, progress: Progress) -> Run:
    processes = config["training"]["devices"]
    if processes > 1 and not launched():
        if network is not None or not Path(items.source).is_absolute():
            raise ValueError(
                "--devices needs data in files and an encoder by name, which other processes can open; or start Python under torchrun"
            )
        supervise(run, processes, quiet=progress.quiet)
        return Run(run)
    _train(run, config, items, network, progress)
    return Run(run)


def _train(run: Path, config: dict[str, Any], items: Items, network: nn.Module | None, progress: Progress) -> None:
    training = training_of(config)
    device = choose_device("auto" if config["training"]["device"] == "cuda" else config["training"]["device"])
    if "start" in config and not steps_saved(run / "checkpoints"):
        network = started(config)
    method = build_method(config, items, network)
    chosen = {**method.encoder.spec, "name": config["encoder"]["name"]}
    if chosen != config["encoder"]:  # the method has chosen what its encoder looks at, how it pools, or what of its head stays
        config = {**config, "encoder": chosen}
        if rank() == 0:
            write_config(run, config)
    if is_parallel():
        from selfsup.models.batch_norm import synchronise

        synchronise(method)
    progress.say(summary(config, method, items))
    workers = config["data"]["settings"].get("workers")
    workers = (os.cpu_count() or 1) // world_size() if workers is None else workers
    own_share = training.batch_size // world_size()

    def batches(step: int) -> Any:
        where = {"rank": rank(), "world_size": world_size(), "workers": workers}
        return iter(Loader(items, own_share, seed=training.seed, start_step=step, **where))

    monitor = make_monitor(items, config["data"]["image_size"], device, training.seed)
    fit(method, training, run, batches=batches, device=device, monitor=monitor, progress=progress)
    if rank() == 0:
        finish(run, config, items, method, progress)


def finish(run: Path, config: dict[str, Any], items: Items, method: Method, progress: Progress) -> None:
    """Export the encoder and write the page."""
    from selfsup.report import write_report

    method.eval()
    encoder = method.encoder.cpu()
    save_encoder(run / "encoder", encoder, config, items.tokenizer)
    write_page_data(run, items, method.cpu(), config)
    beside = write_beside_pca(run, items, method, config)
    if beside is not None:
        progress.say(f"reconstruction  {beside.in_words()}")
    page = write_report(run)
    progress.say(f"encoder  {run / 'encoder'}\nreport   {page}")


def summary(config: dict[str, Any], method: Method, items: Items) -> str:
    """Two lines: what is trained on what, and how."""
    shape, how = in_words(config)
    parameters = sum(p.numel() for p in method.encoder.parameters())
    columns = [s for s in items.skipped if s.name.startswith('column "')] if items.table else []
    skipped = f", {len(items.skipped) - len(columns)} skipped" if len(items.skipped) > len(columns) else ""
    begun = f" from {config['start']['path']}" if "start" in config else ""
    notes = "".join(f"\n{note.name}: {note.reason}" for note in columns)
    return (
        f"{config['method']} on {items.source}: {len(items)} items{skipped}, {shape}\n"
        f"{config['encoder']['name']} ({parameters / 1e6:.2f} M parameters){begun}, {how}{notes}"
    )


def _decoding(progress: Progress) -> Any:
    def say(what: str, done: int, total: int) -> None:
        if progress.due() or done == total:
            progress.note(f"{what} {done}/{total}")

    return say
