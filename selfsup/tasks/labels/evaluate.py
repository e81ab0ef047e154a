"""`selfsup evaluate`: what an encoder is worth with labels, in four rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from selfsup.data import Items
from selfsup.engine.checkpoint import replace_file
from selfsup.engine.log import Progress
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.few_label import COUNTS
from selfsup.evaluation.four_rows import evaluate as four_rows
from selfsup.evaluation.protocol import MEASURES, SCRATCH_IMAGES, Protocol
from selfsup.method import Encoder
from selfsup.tasks.pretraining.plan import choose_device, has_fast_bf16
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, untrained

NAMES = {
    "encoder": "this encoder",
    "pixels_pca": "pixels, PCA",
    "bag_of_words": "bag of words",
    "untrained": "untrained",
    "scratch": "from scratch",
}
"""Short, so that a terminal of 80 columns has room for the figures; `MEANING` says the rest."""
MEANING = {
    "pixels_pca": "pixels, PCA: raw ones at the encoder's width",
    "bag_of_words": "bag of words: TF-IDF of the encoder's tokens",
    "untrained": "untrained and from scratch: the same network, without training and with these labels only",
}


def evaluate(
    encoder: str | Path | TrainedEncoder,
    train: Any,
    test: Any,
    *,
    protocol: Sequence[str] = MEASURES,
    counts: Sequence[int] = COUNTS,
    seeds: int = 5,
    best: bool = False,
    seed: int = 0,
    scratch_images: int | None = None,
    scratch_few_images: int = SCRATCH_IMAGES,
    flip: bool = True,
    max_bad: float = 0.01,
    column: str = "text",
    label: str = "label",
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """kNN, linear probe and few-label curve of an encoder, raw pixels or a bag of words, the untrained network, training from scratch.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave; a run keeps the result and shows it on its page.
        train, test: labelled data, anything that `selfsup.pretrain` takes.
        protocol: any of knn, linear, few-label.
        counts: labels a class of the few-label curve.
        seeds: draws of each count.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of the untrained network and the trainings from scratch.
        scratch_images: items that the training from scratch on all labels sees; 10 epochs when not given.
        scratch_few_images: items that each training from scratch on few labels sees, and at least 10 epochs.
        flip: whether a mirrored image keeps its class, for the training from scratch.
        max_bad: largest fraction of unreadable files, 0 to 1.
        column, label: of tables of text, the columns with the texts and their classes.
        device: auto, cpu, cuda or cuda:N.
        quiet: no progress on stderr.

    Returns:
        "encoder", "pixels_pca" (of text "bag_of_words"), "untrained", "scratch", each with those of "knn_top1", "linear_top1" (fractions of
        1) and "few_label" ({"10": {"mean", "low", "high"}}) that the protocol asks for; "protocol".

    Raises:
        ValueError: no labels, classes that do not match, or a protocol that is not known.
    """
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    settings = Protocol(
        measures=tuple(protocol),
        counts=tuple(counts),
        seeds=seeds,
        seed=seed,
        flip=flip,
        scratch_images=scratch_images,
        scratch_few_images=scratch_few_images,
    )
    columns = {"column": column, "label": label} if trained.tokenizer is not None else {}
    progress = Progress(quiet=quiet)
    where = choose_device(device)
    precision: Literal["fp32", "bf16"] = "bf16" if has_fast_bf16(where) else "fp32"

    def embed_with(network: Encoder, items: Items) -> torch.Tensor:
        return embed_items(network.to(where), items, trained.image_size, device=where)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = untrained(trained)
    result = four_rows(
        lambda items: embed_with(trained.network, items),
        lambda items: embed_with(fresh, items),
        lambda: untrained(trained),
        *(trained.open(data, cache=True, max_bad=max_bad, **columns) for data in (train, test)),
        image_size=trained.image_size,
        protocol=settings,
        device=where,
        precision=precision,
        progress=lambda what, done, total: progress.note(f"{what} {done}/{total}") if progress.due() else None,
    )
    progress.close()
    trained.network.cpu()
    if isinstance(encoder, str | Path):
        _keep(Path(encoder), result)
    return result


def _keep(run: Path, result: Mapping[str, Any]) -> None:
    """Write `evaluation.json` and the page again, where the encoder came with its run."""
    if not (run / "metrics.jsonl").is_file():
        return
    from selfsup.report import write_report

    replace_file(run / "evaluation.json", json.dumps(result, indent=1).encode())
    write_report(run)


def as_table(result: Mapping[str, Any]) -> Table:
    """The four rows for a terminal, in per cent."""
    counts = list(result["encoder"].get("few_label", {}))
    measures = {"knn_top1": "kNN", "linear_top1": "linear"}
    shown = [key for key in measures if key in result["encoder"]]
    protocol = result["protocol"]
    caption = f"top-1 in %, {protocol['test_items']} test items"
    if counts:
        caption += f"; {counts[0]} to {counts[-1]}: with so many labels a class, mean of {protocol['few_label_seeds']} draws, 95 % interval"
    if "few_label_left_out" in protocol:
        caption += f"; left out: {protocol['few_label_left_out']}"
    caption += "".join(f"\n{said}" for row, said in MEANING.items() if row in result)
    heads = [measures[key] for key in shown] + counts
    table = Table(
        Column("", no_wrap=True),
        *(Column(head, no_wrap=True) for head in heads),
        caption=caption,
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for row, name in NAMES.items():
        if row not in result:
            continue
        cells = [f"{100 * result[row][key]:.1f}" for key in shown]
        for count in counts:
            at = result[row]["few_label"][count]
            cells.append(f"{100 * at['mean']:.1f}\n±{50 * (at['high'] - at['low']):.1f}")
        table.add_row(name, *cells)
    return table
