"""`selfsup finetune`: from a pretrained encoder and labels, few will do, to a classifier; beside the same network from scratch.

Axes: N labelled items, K classes, D width of the encoder's vectors.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from selfsup.data import Items
from selfsup.engine.log import Progress
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.few_label import fit_heads, interval, labelled_rows, wilson
from selfsup.evaluation.linear import held_out
from selfsup.evaluation.logistic import Scaling
from selfsup.evaluation.protocol import SCRATCH_EPOCHS, SCRATCH_IMAGES, labels_of, matched
from selfsup.evaluation.scratch import BATCH, train_from_scratch
from selfsup.method import Encoder
from selfsup.tasks.classifier import TrainedClassifier, save_classifier
from selfsup.tasks.encoder import TrainedEncoder, load, network_of, untrained
from selfsup.tasks.plan import check_numbers, choose_device, empty_folder, has_fast_bf16

How = Literal["frozen", "full", "layerwise"]
GRID = (2e-4, 6e-4, 2e-3)  # learning rates to choose from; the last is the one of training from scratch in `selfsup evaluate`
FALLBACK = {"pretrained": 2e-4, "scratch": 2e-3}  # where no class has a label to spare
HELD_OUT = 0.2  # of each class's labels, at least one, to choose among them
DECAY = 0.75


def finetune(
    encoder: str | Path | TrainedEncoder,
    train: Any,
    test: Any = None,
    *,
    out: str | Path,
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
) -> TrainedClassifier:
    """Make a classifier of an encoder, with all labels or a few; with test data, say how good it is beside the same network from scratch.

    Frozen: logistic regression on the encoder's vectors, solved exactly, its penalty chosen by cross-validation within the labels; the
    accuracy is the one of the few-label curve of `selfsup evaluate`. Full and layerwise: from there on (2202.10054, "LP-FT"), encoder and
    linear layer together, by AdamW, one cosine, 64 crops a step; layerwise, the rate of a block is `layer_decay`^depth of the linear
    layer's, where the encoder's last block has depth 1; see `layerwise_rates` for what a block is. Statistics of batch normalisation are
    of the labelled items in the end.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave.
        train: labelled data, as pretrain takes it; items without a class are left out and counted.
        test: labelled data; classes are matched by name, and an item of a class that train lacks counts as wrong.
        out: folder of the classifier: encoder/ and classifier/.
        labels: labels of each class to learn from, drawn at random by the seed; all when not given.
        fraction: part of each class's labels instead, above 0 to 1, at least one label.
        how: frozen, full or layerwise.
        layer_decay: of layerwise, above 0 to 1; 0.75 when not given, as MAE has it.
        epochs: how long: passes over the labels. Without epochs and steps: 10 epochs, and at least 3,200 crops.
        steps: how long: optimiser steps of 64 crops.
        lr: peak learning rate. When not given: of 2e-4, 6e-4 and 2e-3, the one with the best cross entropy on a fifth of each class's
            labels, after a training without them; where no class has two labels, 2e-4, and from scratch 2e-3.
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
        or, of a single seed, the fraction of test items with Wilson's.

    Raises:
        ValueError: no labels, fewer of a class than asked for, one class only, settings that contradict each other, or `out` is not empty.
    """
    _check(how, labels, fraction, layer_decay, epochs, steps, lr, seeds)
    scratch = scratch and test is not None
    if how == "frozen" and not scratch and (epochs, steps, lr) != (None, None, None):
        raise ValueError(
            "frozen is solved exactly; --epochs, --steps and --lr are of the training from scratch beside it, and there is none"
        )
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    if scratch:
        network_of(trained.config)  # raises for a user's own module, before hours have passed
    settings = {"cache": True, "max_bad": max_bad}
    labelled = trained.open(train, **settings)
    few, tests, notes = matched(labelled, labelled if test is None else trained.open(test, **settings))
    classes = few.classes[: notes["classes"]]
    if len(classes) < 2:
        raise ValueError(f"{few.source} has labels of one class only ({classes[0]}); a classifier needs at least 2")
    draws = [_draw(labels_of(few), classes, labels, fraction, seed + k).numpy() for k in range(seeds)]
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


def _draw(y: Tensor, classes: tuple[str, ...], labels: int | None, fraction: float | None, seed: int) -> Tensor:
    """Rows to learn from; of each class at least one."""
    sizes = y.bincount(minlength=len(classes))
    if labels is not None:
        smallest = int(sizes.argmin())
        if labels > sizes[smallest]:
            n = int(sizes[smallest])
            raise ValueError(f'class "{classes[smallest]}" has only {n} labelled items, got --labels {labels}; choose {n} or less')
        return labelled_rows(y, labels, seed)
    if fraction is None:
        return torch.arange(len(y))
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for c, size in enumerate(sizes.tolist()):
        kept = torch.randperm(size, generator=generator)[: max(1, round(fraction * size))]
        drawn.append((y == c).nonzero()[kept, 0])
    return torch.cat(drawn)


def _check(
    how: str,
    labels: int | None,
    fraction: float | None,
    layer_decay: float | None,
    epochs: float | None,
    steps: int | None,
    lr: float | None,
    seeds: int,
) -> None:
    if how not in get_args(How):
        raise ValueError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if labels is not None and fraction is not None:
        raise ValueError("--labels and --fraction each say how many labels; give one of them")
    if epochs is not None and steps is not None:
        raise ValueError("--epochs and --steps each say how long to train; give one of them")
    if layer_decay is not None and how != "layerwise":
        raise ValueError(f"--layer-decay is for --how layerwise, got --how {how}")
    check_numbers({"labels": labels, "fraction": fraction, "layer_decay": layer_decay})
    check_numbers({"epochs": epochs, "steps": steps, "lr": lr, "seeds": seeds})
    if fraction is not None and fraction > 1:
        raise ValueError(f"--fraction is a part of the labels, above 0 and at most 1, got {fraction}")
    if layer_decay is not None and layer_decay > 1:
        raise ValueError(f"--layer-decay must be above 0 and at most 1, got {layer_decay}")


def as_table(about: Mapping[str, Any]) -> Table:
    """The result of `finetune` for a terminal, accuracies in per cent; without test data, what was trained."""
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
