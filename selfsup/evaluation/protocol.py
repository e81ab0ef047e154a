"""What is measured and on which items: settings, and two data sets whose classes mean the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.data import Items
from selfsup.evaluation.few_label import COUNTS, left_out
from selfsup.evaluation.pca import PIXEL_SIDE

MEASURES = ("knn", "linear", "few-label")
SCRATCH_EPOCHS = 10
SCRATCH_IMAGES = 3_200  # at least: 20 labels of each digit are worth 96.0 % after 3,200 crops and 96.8 % after 6,400
KNN_K = 200
KNN_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how.

    Attributes:
        measures: of "knn", "linear" and "few-label".
        counts: labels a class of the few-label curve.
        seeds: draws of each count, 2 or more.
        seed: of everything else that is random.
        flip: whether a mirrored image keeps its class, for training from scratch; False for digits and letters.
        scratch_images: crops that the network from scratch sees with all labels; None for 10 epochs, and at least 3,200.
        scratch_few_images: crops that it sees with few labels; 10 epochs where that is more.
    """

    measures: Sequence[str] = MEASURES
    counts: Sequence[int] = COUNTS
    seeds: int = 5
    seed: int = 0
    flip: bool = True
    scratch_images: int | None = None
    scratch_few_images: int = SCRATCH_IMAGES

    def __post_init__(self) -> None:
        unknown = [name for name in self.measures if name not in MEASURES]
        if unknown or not self.measures:
            raise ValueError(f"a protocol is made of {', '.join(MEASURES)}; got {', '.join(unknown) or 'nothing'}")
        if self.seeds < 2:
            raise ValueError(f"an interval needs at least 2 seeds, got {self.seeds}")
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"counts must hold numbers of labels a class, 1 or more; got {tuple(self.counts)}")
        budgets = [self.scratch_few_images] + ([] if self.scratch_images is None else [self.scratch_images])
        if min(budgets) < 1:
            raise ValueError(f"training from scratch needs a budget of at least 1 image, got {min(budgets)}")

    def images_for(self, labels: int, *, few: bool) -> int:
        """Crops that a network from scratch sees when it has that many labels."""
        if few:
            return max(self.scratch_few_images, SCRATCH_EPOCHS * labels)
        return self.scratch_images or max(SCRATCH_IMAGES, SCRATCH_EPOCHS * labels)

    def describe(self, train: Items, image_size: int) -> dict[str, Any]:
        """How the figures come about: names and plain values, for people and for JSON."""
        said: dict[str, Any] = {"measures": ", ".join(self.measures), "seed": self.seed}
        said |= {"sequence_length": train.shape[0]} if train.kind == "text" else {"image_size": image_size}
        if "knn" in self.measures:
            said |= {"knn_k": min(KNN_K, len(train)), "knn_temperature": KNN_TEMPERATURE}
        if "few-label" in self.measures:
            said |= {"few_label_seeds": self.seeds, "few_label_interval": "95 % of the mean over draws, Student's t"}
            gone = left_out(labels_of(train), self.counts, train.classes)
            if gone:
                said["few_label_left_out"] = "; ".join(f"{count}: {why}" for count, why in gone.items())
            said["scratch_few_label_images"] = f"{self.scratch_few_images}, and at least {SCRATCH_EPOCHS} epochs"
        if set(self.measures) != {"few-label"}:
            said["scratch_images"] = self.images_for(len(train), few=False)
        if train.kind == "image":
            said["scratch_flip"] = self.flip
        if image_size:
            said["pixels_pca_side"] = min(image_size, PIXEL_SIDE)
        return said


def labels_of(items: Items) -> Tensor:
    """(N,) int64 classes; ValueError where the data have none."""
    if items.labels is None or not (items.labels >= 0).any():
        raise ValueError(f"{items.source} has no labels; classes are needed: {_where(items)}")
    return torch.from_numpy(items.labels)


def _where(items: Items) -> str:
    if items.kind == "text":
        return "a second column in .tsv or .csv, a column that --label names, or one sub-folder for each"
    return "for instance one sub-folder for each"


def matched(train: Items, test: Items) -> tuple[Items, Items, dict[str, int]]:
    """Labelled items only, and one number for one class name: those of the training data first, then those that only the test data have.

    Returns:
        train, test, and counts of what was found and left out.
    Raises:
        ValueError: one of them has no labels, or they share no class.
    """
    occurring = [[items.classes[c] for c in labels_of(items).unique().tolist() if c >= 0] for items in (train, test)]
    known, others = occurring[0], [name for name in occurring[1] if name not in occurring[0]]
    number = {name: c for c, name in enumerate(known + others)}
    notes: dict[str, int] = {"classes": len(known)}

    def renumbered(name: str, items: Items) -> Items:
        y = labels_of(items).numpy()
        kept = np.flatnonzero(y >= 0)
        table = np.array([number.get(c, -1) for c in items.classes], dtype=np.int64)
        notes[f"{name}_items"] = len(kept)
        if len(kept) < len(items):
            notes[f"{name}_items_without_class"] = len(items) - len(kept)
        return replace(items.subset(kept), labels=table[y[kept]], classes=tuple(number))

    train, test = renumbered("train", train), renumbered("test", test)
    strangers = int((labels_of(test) >= len(known)).sum())
    if strangers == len(test):
        raise ValueError(f"no class of {test.source} ({', '.join(others[:5])}) is one of {train.source} ({', '.join(known[:5])})")
    if strangers:
        notes["test_items_of_classes_not_in_train"] = strangers
    return train, test, notes
