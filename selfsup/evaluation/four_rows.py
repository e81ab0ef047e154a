"""Four rows side by side: the encoder, raw pixels or a bag of words, the same network untrained, and trained from scratch on the labels.

Axes: N training items, M test items.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selfsup.data import Items
from selfsup.evaluation.bag_of_words import bag_of_words
from selfsup.evaluation.features import Embed, embed_items, top1
from selfsup.evaluation.few_label import few_label, interval, labelled_rows, usable_counts
from selfsup.evaluation.knn import knn_top1
from selfsup.evaluation.linear import linear_probe
from selfsup.evaluation.pca import pixels_pca
from selfsup.evaluation.protocol import KNN_K, KNN_TEMPERATURE, Protocol, labels_of, matched
from selfsup.evaluation.scratch import Scratch, train_from_scratch
from selfsup.method import Encoder

Features = Callable[[], tuple[Tensor, Tensor]]
Progress = Callable[[str, int, int], None]


def evaluate_table(
    rows: Mapping[str, Features], train_y: Tensor, test_y: Tensor, protocol: Protocol, *, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """Measure each row's vectors by the same rules.

    Args:
        rows: by name, what makes (train, test) vectors, (N, width) and (M, width); called one after the other, so that one is in memory.
        train_y, test_y: (N,) and (M,) classes, 0 or above.
        progress: called with (what begins, measures done, measures in all).
    Returns:
        By name: "knn_top1", "linear_top1" (fractions of 1), "few_label" ({"10": {"mean", "low", "high"}}), those that were asked for.
    """
    table: dict[str, dict[str, Any]] = {}
    steps = [f"{name}: {what}" for name in rows for what in ("vectors", *protocol.measures)]

    def tell(step: str) -> None:
        if progress is not None:
            progress(step, steps.index(step), len(steps))

    for name, features in rows.items():
        tell(f"{name}: vectors")
        train_x, test_x = features()
        table[name] = {}
        for measure in protocol.measures:
            tell(f"{name}: {measure}")
            if measure == "knn":
                table[name]["knn_top1"] = knn_top1(train_x, train_y, test_x, test_y, k=KNN_K, temperature=KNN_TEMPERATURE)
            elif measure == "linear":
                table[name]["linear_top1"] = linear_probe(train_x, train_y, test_x, test_y, seed=protocol.seed).top1
            else:
                curve = few_label(train_x, train_y, test_x, test_y, counts=protocol.counts, seeds=protocol.seeds)
                table[name]["few_label"] = {count: value._asdict() for count, value in curve.items()}
    return table


def evaluate(
    embed: Embed,
    untrained: Embed,
    build: Callable[[], Encoder],
    train: Items,
    test: Items,
    *,
    image_size: int,
    protocol: Protocol | None = None,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The table of the encoder and what it has to beat, with the protocol that it was made by.

    Classes of the two data sets are matched by name. Items without a class are left out; a test item whose class the training data lack
    counts as wrong. Both are counted in "protocol", beside everything else that decides the figures.

    Args:
        embed: the encoder, items -> (items, width).
        untrained: the same network with its initial weights.
        build: makes that network anew, for training from scratch; called under a seed.
        train, test: labelled items.
        image_size: side of what the encoder sees, in pixels; 0 for vectors.
        protocol: what to measure; everything by default.
        device, precision: of training from scratch.
        progress: called with (what begins or goes on, done, total).
    Returns:
        A JSON-able object: the keys are "encoder", "pixels_pca" (of text "bag_of_words"), "untrained", "scratch", each as in
        `evaluate_table`, and "protocol".
    Raises:
        ValueError: data without labels, or no class in common.
    """
    protocol = protocol or Protocol()
    train, test, notes = matched(train, test)
    said = {**notes, **protocol.describe(train, image_size)}
    width = embed(train.subset(np.arange(1))).shape[1]  # what the pixels' principal components are brought to

    plain = "bag_of_words" if train.kind == "text" else "pixels_pca"

    def without_network() -> tuple[Tensor, Tensor]:
        if train.kind == "text":
            found = bag_of_words(train, test, seed=protocol.seed)
        else:
            found = pixels_pca(train, test, width, image_size=image_size, seed=protocol.seed)
        said[f"{plain}_width"] = found[0].shape[1]
        return found

    rows: dict[str, Features] = {
        "encoder": lambda: (embed(train), embed(test)),
        plain: without_network,
        "untrained": lambda: (untrained(train), untrained(test)),
    }
    table: dict[str, Any] = dict(evaluate_table(rows, labels_of(train), labels_of(test), protocol, progress=progress))
    table["scratch"] = FromScratch(build, train, test, image_size, protocol, device, precision, progress).row()
    return {**table, "protocol": said}


@dataclass(frozen=True)
class FromScratch:
    """The row "scratch": one network for all labels, and one for each draw of few; the draws are those of the other rows."""

    build: Callable[[], Encoder]
    train: Items
    test: Items
    image_size: int
    protocol: Protocol
    device: torch.device | str
    precision: Literal["fp32", "bf16"]
    progress: Progress | None

    def row(self) -> dict[str, Any]:
        """Entries as in `evaluate_table`."""
        train_y, test_y = labels_of(self.train), labels_of(self.test)
        row: dict[str, Any] = {}
        with_all = [name for name in self.protocol.measures if name != "few-label"]
        if with_all:
            protocol = replace(self.protocol, measures=with_all)
            row = evaluate_table({"scratch": self._with_all_labels}, train_y, test_y, protocol, progress=self.progress)["scratch"]
        if "few-label" in self.protocol.measures:
            counts = usable_counts(train_y, self.protocol.counts)
            row["few_label"] = {str(count): interval(self._accuracies(count, train_y, test_y))._asdict() for count in counts}
        return row

    def _with_all_labels(self) -> tuple[Tensor, Tensor]:
        network = self._trained(np.arange(len(self.train)), self.protocol.seed, "all labels", few=False).embed
        return self._outputs(network, self.train), self._outputs(network, self.test)

    def _accuracies(self, count: int, train_y: Tensor, test_y: Tensor) -> list[float]:
        found = []
        for seed in range(self.protocol.seeds):
            name = f"{count} labels a class, draw {seed + 1} of {self.protocol.seeds}"
            network = self._trained(labelled_rows(train_y, count, seed).numpy(), seed, name, few=True).predict
            found.append(top1(self._outputs(network, self.test).argmax(dim=1), test_y))
        return found

    def _trained(self, index: np.ndarray, seed: int, name: str, *, few: bool) -> Scratch:
        tell = self.progress
        return train_from_scratch(
            self.build,
            self.train,
            index,
            int(labels_of(self.train).max()) + 1,
            image_size=self.image_size,
            seed=seed,
            images=self.protocol.images_for(len(index), few=few),
            flip=self.protocol.flip,
            device=self.device,
            precision=self.precision,
            progress=None if tell is None else lambda done, total: tell(f"scratch: {name}", done, total),
        )

    def _outputs(self, network: Callable[[Tensor], Tensor], items: Items) -> Tensor:
        return embed_items(network, items, self.image_size, device=self.device, precision=self.precision)
