"""A classifier in a folder: the encoder as `selfsup.load` takes it, a linear layer on it, and the names of the classes.

Axes: N items, K classes.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.checkpoint import load_tensors, read_json, replace_file, save_tensors, verify_folder
from selfsup.method import Encoder
from selfsup.tasks.labels.text_model import TrainedText, named, write_predictions
from selfsup.tasks.saved.trained_encoder import load, save_encoder


class TrainedClassifier:
    """A classifier that `selfsup finetune` or `selfsup.distill` has written; every byte is checked first.

    Args:
        path: its folder.
        network: for an encoder that was a user's own module: the same module, whose weights are replaced.

    Attributes:
        encoder: as `selfsup.load(path)` gives it.
        classes: names of the K classes.
        config: what was written with it: the classes, and how and how well it was trained.

    Raises:
        ValueError: nothing is there to load.
        DamagedError: it is not what was written; names the tensor.
    """

    def __init__(self, path: str | Path, *, network: Encoder | None = None) -> None:
        self.path = Path(path)
        if not (self.path / "classifier").is_dir():
            raise ValueError(
                f"{self.path}: no classifier/ in it; expected a folder that `selfsup finetune` or selfsup.distill has written to its end"
            )
        verify_folder(self.path / "classifier")
        self.config: dict[str, Any] = read_json(self.path / "classifier" / "config.json")
        if "task" in self.config:
            raise ValueError(f"{self.path}: a classifier of text; use selfsup.predict, or selfsup.tasks.labels.text_model.TrainedText")
        self.encoder = load(self.path, network=network)
        self._linear = load_tensors(self.path / "classifier", "model")
        self.classes: list[str] = self.config["classes"]

    def probabilities(self, data: Any) -> np.ndarray:
        """(N, K) float32 of all items, in the order of `encoder.open(data).names`."""
        z = torch.from_numpy(self.encoder.embed(data))
        return F.linear(z, self._linear["weight"], self._linear["bias"]).softmax(dim=1).numpy()

    def predict(self, data: Any) -> np.ndarray:
        """(N,) numbers of the likeliest classes, places in `classes`."""
        return self.probabilities(data).argmax(axis=1)


def save_classifier(folder: Path, encoder: Encoder, linear: nn.Linear, config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write `encoder/` and then `classifier/`, each in one atomic step; who finds the second finds both.

    Args:
        folder: where; must exist.
        encoder, linear: the two parts, on the CPU.
        config: of the encoder, see `save_encoder`.
        about: what JSON can hold, "classes" among it: the names of the K classes.
    """
    save_encoder(folder / "encoder", encoder, config)
    tensors = {name: p.detach() for name, p in linear.named_parameters()}
    save_tensors(folder / "classifier", {"model": tensors}, {"config": about}, {})


class Predictions(NamedTuple):
    """What a classifier says of N items."""

    names: Sequence[str]  # of the items; of text the texts, the first of a pair, or the questions
    classes: Sequence[Any]  # the likeliest class of each; of text also a score, the tags of its words, or an answer
    probabilities: Any  # (N,) float32, of that class; of tags a list of them


def predict(
    classifier: str | Path | TrainedClassifier | TrainedText,
    data: Any,
    *,
    out: str | Path | None = None,
    column: str | None = None,
    second: str | None = None,
    max_bad: float = 0.01,
) -> Predictions:
    """The likeliest class of every item, and how likely the classifier thinks it.

    Args:
        classifier: a folder of `selfsup finetune` or `selfsup.distill`, or what they returned.
        data: anything that `selfsup.pretrain` takes; of text, what `selfsup.finetune` takes, labels are not needed.
        out: a .csv file to write, with the columns name, class and probability; of text .csv or .tsv, see `write_predictions`.
        column, second: of text, names of columns, as for `selfsup.finetune`.
        max_bad: largest fraction of unreadable files, 0 to 1.

    Raises:
        ValueError: `out` has another ending, there is no classifier, or the data does not fit it.
    """
    suffix = ".csv" if out is None else Path(out).suffix
    if suffix not in (".csv", ".tsv"):
        raise ValueError(f"{out}: expected a name that ends in .csv, or of text in .tsv")
    trained = open_classifier(classifier) if isinstance(classifier, str | Path) else classifier
    if isinstance(trained, TrainedText):
        found = trained.open(data, column=column, second=second)
        said = trained.predict(found)
        if out is not None:
            write_predictions(Path(out), found, said)
        return Predictions(named(found), said.values, said.probabilities)
    if column is not None or second is not None or suffix != ".csv":
        raise ValueError("--column, --second and .tsv are of text, and this classifier takes other data; write a .csv")
    items = trained.encoder.open(data, max_bad=max_bad)
    p = trained.probabilities(items)
    best = p.argmax(axis=1)
    predicted = Predictions(items.names, [trained.classes[c] for c in best], p[np.arange(len(p)), best])
    if out is not None:
        text = io.StringIO()
        rows = zip(predicted.names, predicted.classes, (f"{x:.6f}" for x in predicted.probabilities), strict=True)
        csv.writer(text).writerows([("name", "class", "probability"), *rows])
        replace_file(Path(out), text.getvalue().encode(errors="surrogateescape"))  # a name that is no UTF-8 keeps its bytes
    return predicted


def open_classifier(path: str | Path) -> TrainedClassifier | TrainedText:
    """What `selfsup finetune` has written: of images and vectors, or of text.

    Raises:
        ValueError: nothing is there to load.
        DamagedError: it is not what was written.
    """
    config = Path(path) / "classifier" / "config.json"
    return TrainedText(path) if config.is_file() and "task" in read_json(config) else TrainedClassifier(path)
