"""`selfsup finetune`: from a pretrained encoder and labels, few will do, to a classifier; beside the same network from scratch.

Images and vectors are treated here, text in `finetune_text.py`.

Axes: N labelled items, K classes, D width of the encoder's vectors.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from selfsup.data import Items
from selfsup.data.text.labelled import Task
from selfsup.engine.log import Progress
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.few_label import fit_heads, interval, wilson
from selfsup.evaluation.linear import held_out
from selfsup.evaluation.logistic import Scaling
from selfsup.evaluation.protocol import SCRATCH_EPOCHS, SCRATCH_IMAGES, labels_of, matched
from selfsup.evaluation.scratch import BATCH, train_from_scratch
from selfsup.method import Encoder
from selfsup.tasks.labels.finetune_settings import DECAY, HELD_OUT, How, check_settings, draw
from selfsup.tasks.labels.text_model import TrainedText
from selfsup.tasks.pretraining.plan import choose_device, has_fast_bf16
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_classifier import TrainedClassifier, save_classifier
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, network_of, untrained

GRID = (2e-4, 6e-4, 2e-3)  # learning rates to choose from; the last is the one of training from scratch in `selfsup evaluate`
FALLBACK = {"pretrained": 2e-4, "scratch": 2e-3}  # where no class has a label to spare


def finetune(
    encoder: str | Path | TrainedEncoder,
    train: Any,
    test: Any = None,
    *,
    out: str | Path,
    task: Task | None = None,
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
    augment: bool = True,
    flip: bool = True,
    scratch: bool = True,
    best: bool = False,
    max_bad: float = 0.01,
    device: str = "auto",
    quiet: bool = False,
) -> TrainedClassifier | TrainedText:
    """Make a classifier of an encoder, with all labels or a few; with test data, say how good it is beside the same network from scratch.

    Frozen: logistic regression on the encoder's vectors, solved exactly, its penalty chosen by cross-validation within the labels; the
    accuracy is the one of the few-label curve of `selfsup evaluate`. Full and layerwise: from there on (2202.10054, "LP-FT"), encoder and
    linear layer together, by AdamW, one cosine, 64 crops a step; layerwise, the rate of a block is `layer_decay`^depth of the linear
    layer's, where the encoder's last block has depth 1; see `layerwise_rates` for what a block is. Statistics of batch normalisation are
    of the labelled items in the end.

    Of text, a linear layer on the encoder's vector gives classes or, by least squares, scores; on the vectors of tokens it gives tags of
    words, or where an answer begins and ends. Frozen, it is trained by AdamW like the rest, on vectors centred and scaled.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave.
        train: labelled data, as pretrain takes it; of text as `selfsup.data.text.labelled.open_labelled` does. Items without a class are
            left out and counted.
        test: labelled data; classes are matched by name, and an item of a class that train lacks counts as wrong.
        out: folder of the classifier: encoder/ and classifier/.
        task: of text, classify, pairs, tokens or answers; what the data are for when not given.
        column, second, label: of text, names of columns, see `open_labelled`.
        labels: labels of each class to learn from, drawn at random by the seed; all when not given.
        fraction: part of each class's labels instead, above 0 to 1, at least one label.
        how: frozen, full or layerwise.
        layer_decay: of layerwise, above 0 to 1; 0.75 when not given, as MAE has it.
        epochs: how long: passes over the labels. Without epochs and steps: 10 epochs, and at least 3,200 crops; of text 4, and at
            least 200 steps.
        steps: how long: optimiser steps of 64 crops, or 32 rows of text.
        lr: peak learning rate. When not given: of 2e-4, 6e-4 and 2e-3, the one with the best cross entropy on a fifth of each class's
            labels, after a training without them; where no class has two labels, 2e-4, and from scratch 2e-3. Of text 1e-4, 3e-4 and
            1e-3 (frozen 1e-3, 3e-3 and 1e-2), chosen with the first seed for all.
        seeds: repetitions, each with another draw of labels, order and crops; the first one is the classifier that is written.
        seed: of the first repetition; the next has seed + 1.
        augment: random crops of 50 to 100 % of the area, and flips; otherwise the central square.
        flip: whether a mirrored image keeps its class; not so for digits, letters and arrows.
        scratch: with test data, train the same network from scratch as well: same labels, same settings, its learning rate chosen likewise.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        quiet: no progress on stderr.

    Returns:
        The classifier; `config["finetuning"]` has the accuracies, fractions of 1: the mean over the seeds with Student's 95 % interval,
        or, of a single seed, the fraction of test items with Wilson's. Of text, `selfsup.tasks.labels.text_model.TrainedText`, and several
        "scores".

    Raises:
        ValueError: no labels, fewer of a class than asked for, one class only, settings that contradict each other, or `out` is not empty.
    """
    check_settings(how, labels, fraction, layer_decay, epochs, steps, lr, seeds)
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    of_text = {"task": task, "column": column, "second": second, "label": label}
    if trained.tokenizer is not None:
        if not (augment and flip):
            raise ValueError("--no-augment and --no-flip are of images; text is not augmented")
        from selfsup.tasks.labels.finetune_text import finetune_text

        amount: dict[str, Any] = {"labels": labels, "fraction": fraction, "epochs": epochs, "steps": steps, "seeds": seeds, "seed": seed}
        kind: dict[str, Any] = {"how": how, "layer_decay": layer_decay, "lr": lr, "scratch": scratch, "device": device, "quiet": quiet}
        return finetune_text(trained, train, test, out=out, **of_text, **amount, **kind)
    if any(value is not None for value in of_text.values()):
        raise ValueError("--task, --column, --second and --label are of text, and this encoder takes other data")
    scratch = scratch and test is not None
    if how == "frozen" and not scratch and (epochs, steps, lr) != (None, None, None):
        raise ValueError(
            "frozen is solved exactly; --epochs, --steps and --lr are of the training from scratch beside it, and there is none"
        )
    if scratch:
        network_of(trained.config)  # raises for a user's own module, before hours have passed
    settings = {"cache": True, "max_bad": max_bad}
    labelled = trained.open(train, **settings)
    few, tests, notes = matched(labelled, labelled if test is None else trained.open(test, **settings))
    classes = few.classes[: notes["classes"]]
    if len(classes) < 2:
        raise ValueError(f"{few.source} has labels of one class only ({classes[0]}); a classifier needs at least 2")
    draws = [draw(labels_of(few), classes, labels, fraction, seed + k).numpy() for k in range(seeds)]
    budget = steps * BATCH if steps else round((epochs or SCRATCH_EPOCHS) * len(draws[0]))
    work = _Work(
        trained,
        few,
        None if test is None else tests,
        len(classes),
        images=max(budget, 1 if steps or epochs else SCRATCH_IMAGES),
        lr=lr,
        augment=augment,
        flip=flip,
        device=choose_device(device),
        progress=Progress(quiet=quiet),
    )
    folder = empty_folder(out)
    if how == "layerwise":
        layer_decay = DECAY if layer_decay is None else layer_decay
    tuned = work.repeat(draws, seed, how, layer_decay or 1.0)
    about: dict[str, Any] = {
        "how": how,
        "layer_decay": layer_decay,
        "labels": len(draws[0]),
        "labels_per_class": labels,
        "fraction": fraction,
        "classes": list(classes),
        **{key: value for key, value in notes.items() if key != "classes" and (test is not None or key.startswith("train"))},
        "seeds": seeds,
        "seed": seed,
        "images": work.images,
        "augment": augment,
        "flip": flip,
        "tuned": tuned.said,
        "scratch": work.repeat(draws, seed, "full", 1.0, from_scratch=True).said if scratch else None,
    }
    work.progress.close()
    trained.network.cpu()
    save_classifier(
        folder, tuned.encoder, tuned.head, {**trained.config, "finetuning": about}, {"classes": list(classes), "finetuning": about}
    )
    return TrainedClassifier(folder, network=tuned.encoder if trained.config["encoder"]["name"] == "own" else None)


class _Tuned(NamedTuple):
    encoder: Encoder  # of the first seed, on the CPU
    head: nn.Linear
    said: dict[str, Any]  # what the result holds of it


class _Network(NamedTuple):
    encoder: Encoder
    head: nn.Linear
    lr: float | None


@dataclass(frozen=True)
class _Work:
    """What all trainings have in common."""

    trained: TrainedEncoder
    few: Items  # labels 0 to classes - 1
    test: Items | None
    classes: int
    images: int
    lr: float | None
    augment: bool
    flip: bool
    device: torch.device
    progress: Progress

    def repeat(self, draws: list[np.ndarray], seed: int, how: How, decay: float, *, from_scratch: bool = False) -> _Tuned:
        """One network for each draw, and what they are worth."""
        vectors = None if from_scratch else self._outputs(self.trained.network, self.few)
        right, rates, first = [], [], None
        for k, rows in enumerate(draws):
            if vectors is not None and how == "frozen":
                made = _Network(self.trained.network, self._solve(vectors, rows), None)
            else:
                name = f"{'from scratch' if from_scratch else how}, seed {k + 1} of {len(draws)}"
                made = self._train(rows, seed + k, decay, name, vectors)
            rates.append(made.lr)
            if self.test is not None:
                scores = self._outputs(nn.Sequential(made.encoder, made.head), self.test)
                right.append(int((scores.argmax(dim=1) == labels_of(self.test)).sum()))
            first = first or _Network(copy.deepcopy(made.encoder).cpu(), made.head.cpu(), made.lr)
        assert first is not None  # there is at least one draw
        said: dict[str, Any] = {"learning_rates": rates}
        if self.test is not None:
            shares = [n / len(self.test) for n in right]
            found = interval(shares) if len(shares) > 1 else wilson(right[0], len(self.test))
            said = {"accuracy": found._asdict(), "accuracies": shares, **said}
        return _Tuned(first.encoder, first.head, said)

    def _train(self, rows: np.ndarray, seed: int, decay: float, name: str, vectors: Tensor | None) -> _Network:
        """Trained at the best rate: from the encoder that made the vectors, or without them from scratch."""

        def fit(some: np.ndarray, lr: float, what: str) -> nn.Sequential:
            network = train_from_scratch(
                self._untrained if vectors is None else self._pretrained,
                self.few,
                some,
                self.classes,
                image_size=self.trained.image_size,
                seed=seed,
                images=self.images,
                head=None if vectors is None else self._solve(vectors, some).requires_grad_(True),
                lr=lr,
                layer_decay=decay,
                flip=self.flip,
                augment=self.augment,
                device=self.device,
                precision="bf16" if has_fast_bf16(self.device) else "fp32",
                progress=lambda done, total: self.progress.note(f"{name}, {what}: {done}/{total}") if self.progress.due() else None,
            )
            return network.predict  # type: ignore[return-value]

        lr = self.lr or self._choose(fit, rows, seed) or FALLBACK["scratch" if vectors is None else "pretrained"]
        encoder, head = fit(rows, lr, f"rate {lr:g}")
        return _Network(encoder, head, lr)  # type: ignore[arg-type]

    def _choose(self, fit: Callable[[np.ndarray, float, str], nn.Sequential], rows: np.ndarray, seed: int) -> float | None:
        """The rate that does best on held-out labels; None where there are none."""
        y = labels_of(self.few)[rows]
        held = held_out(y, HELD_OUT, seed)
        if not held.any():
            return None
        losses = []
        for lr in GRID:
            network = fit(rows[~held.numpy()], lr, f"trying rate {lr:g}")
            scores = self._outputs(network, self.few.subset(rows[held.numpy()]))
            # Not the accuracy: of twenty items one is 5 %, and measured on digits that chose rates that cost 12 points.
            losses.append(float(F.cross_entropy(scores, y[held])))
        return GRID[min(range(len(GRID)), key=losses.__getitem__)]

    def _solve(self, vectors: Tensor, rows: np.ndarray) -> nn.Linear:
        """Logistic regression on some of the vectors (N, D), in the units of all of them, as a layer for vectors as they are."""
        scaled = Scaling(vectors)
        w = fit_heads(scaled(vectors[rows])[None], labels_of(self.few)[rows][None], self.classes)[0, 0]  # (D + 1, K)
        head = nn.Linear(vectors.shape[1], self.classes)
        weight = w[:-1] / scaled.length.double()
        head.weight.data.copy_(weight.T)
        head.bias.data.copy_(w[-1] - scaled.mean.double() @ weight)
        return head.requires_grad_(False)

    def _pretrained(self) -> Encoder:
        return copy.deepcopy(self.trained.network).cpu().requires_grad_(True)

    def _untrained(self) -> Encoder:
        return untrained(self.trained)

    def _outputs(self, network: nn.Module, items: Items) -> Tensor:
        return embed_items(network.to(self.device), items, self.trained.image_size, device=self.device)


def as_table(about: Mapping[str, Any]) -> Table:
    """The result of `finetune` for a terminal, accuracies in per cent; without test data, what was trained."""
    if "task" in about:
        from selfsup.tasks.labels.finetune_text import as_table as table_of_text

        return table_of_text(about)
    said = f"{about['labels']} labels of {len(about['classes'])} classes"
    if "test_items" in about:
        kind = "mean and 95 % interval over the seeds" if about["seeds"] > 1 else "95 % interval (Wilson)"
        said += f"; {about['test_items']} test items, {kind}"
    if "train_items_without_class" in about:
        said += f"; left out: {about['train_items_without_class']} items without a class"
    if "test_items_of_classes_not_in_train" in about:
        said += f"; {about['test_items_of_classes_not_in_train']} test items are of classes that were not learned, and count as wrong"
    table = Table("", *(["top-1, %", "interval"] if "test_items" in about else []), "learning rate", caption=said)
    how = about["how"] + (f" ({about['layer_decay']:g})" if about["layer_decay"] else "")
    for name, row in ((f"this encoder, {how}", about["tuned"]), ("the same network, from scratch", about["scratch"])):
        if row is not None:
            at = row.get("accuracy")
            figures = [] if at is None else [f"{100 * at['mean']:.1f}", f"{100 * at['low']:.1f} to {100 * at['high']:.1f}"]
            table.add_row(name, *figures, ", ".join(dict.fromkeys("none" if lr is None else f"{lr:g}" for lr in row["learning_rates"])))
    return table
