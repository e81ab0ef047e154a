"""A fine-tuned transformer in a folder: the encoder as `selfsup.load` takes it, the layer on it, and what is asked of text.

Axes: N texts.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup.data.text.labelled import Labelled, Questions, Tagged, Task, Texts, open_labelled
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.engine.checkpoint import load_tensors, read_json, replace_file, save_tensors, verify_folder
from selfsup.engine.state import copy_state
from selfsup.method import Encoder
from selfsup.tasks.labels.text_tasks import Said, TextTask, task_from
from selfsup.tasks.labels.text_training import TextNetwork, outputs_of
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_encoder import load, save_encoder


class TrainedText:
    """What `selfsup finetune` has made of an encoder of text; every byte is checked first.

    Args:
        path: its folder.
        network: for an encoder that was a user's own module: the same module, whose weights are replaced.

    Attributes:
        encoder: as `selfsup.load(path)` gives it.
        task: what it was trained for: see `selfsup.tasks.labels.text_tasks` and `answers`.
        classes: names of the classes or tags; none of scores and spans.
        config: what was written with it: the task, and how and how well it was trained.

    Raises:
        ValueError: nothing is there to load.
        DamagedError: it is not what was written; names the tensor.
    """

    def __init__(self, path: str | Path, *, network: Encoder | None = None) -> None:
        self.path = Path(path)
        self.encoder = load(self.path, network=network)
        verify_folder(self.path / "classifier")
        self.config: dict[str, Any] = read_json(self.path / "classifier" / "config.json")
        self.task: TextTask = task_from(self.config["task"])
        self.classes = list(self.task.classes)
        self._network = TextNetwork(self.encoder.network, self.task.outputs, per_token=self.task.per_token)
        encoder = {f"encoder.{name}": t for name, t in self.encoder.network.state_dict().items()}
        with torch.no_grad():
            copy_state(self._network, {**encoder, **load_tensors(self.path / "classifier", "model")}, self.path)
        self._network.eval().requires_grad_(False)

    def open(self, data: Any, **columns: str | None) -> Labelled:
        """The data as this task takes it; they need no labels."""
        kind: Task | None = self.config["finetuning"]["task"]
        bare = isinstance(data, list) and data and isinstance(data[0], str)
        return open_labelled(data, kind if bare or not isinstance(data, list) else None, **columns)  # type: ignore[arg-type]

    def predict(self, data: Any, *, device: str = "auto", **columns: str | None) -> Said:
        """The class, score, tags or answer of every example, and how likely; `columns` are those of `open_labelled`."""
        found = self.open(data, **columns)
        tokenizer = self.encoder.tokenizer
        assert tokenizer is not None  # it was saved with it
        rows = self.task.rows(found, tokenizer, self.encoder.config["encoder"]["text"]["length"])
        outputs = outputs_of(self._network, rows, np.arange(len(rows.ids)), tokenizer.pad, device=choose_device(device))
        return self.task.read(outputs, rows, found)


def save_text(
    folder: Path, network: TextNetwork, task: TextTask, config: Mapping[str, Any], about: Mapping[str, Any], tokenizer: Tokenizer
) -> None:
    """Write `encoder/` and then `classifier/`, each in one atomic step; who finds the second finds both."""
    save_encoder(folder / "encoder", network.encoder, config, tokenizer)
    documents = {"config": {"classes": list(task.classes), "task": task.config(), "finetuning": about}}
    save_tensors(folder / "classifier", {"model": network.top()}, documents, {})


def named(data: Labelled) -> list[str]:
    """What examples are called: their texts, the first ones of pairs, or the questions."""
    if isinstance(data, Texts):
        return list(data.first)
    return [" ".join(words) for words in data.words] if isinstance(data, Tagged) else [q.text for q in data.asked]


def write_predictions(out: Path, data: Labelled, said: Said) -> None:
    """A table with a row for each text, pair, word or question: what it is, what was predicted, the probability.

    Args:
        out: .tsv, where white space in texts becomes a space, or .csv. Words have the number of their sentence before them.
        data: of which the predictions are.
        said: the predictions.
    """
    head, rows = _rows(data, said)
    text = io.StringIO()
    if out.suffix == ".tsv":
        lines = [head, *([" ".join(cell.split()) for cell in row] for row in rows)]
        text.write("".join("\t".join(line) + "\n" for line in lines))
    else:
        csv.writer(text).writerows([head, *rows])
    replace_file(out, text.getvalue().encode(errors="surrogateescape"))


def _rows(data: Labelled, said: Said) -> tuple[list[str], Sequence[Sequence[str]]]:
    if isinstance(data, Tagged):
        rows = [
            (str(n), word, tag, f"{p:.6f}")
            for n, (words, tags, ps) in enumerate(zip(data.words, said.values, said.probabilities, strict=True), 1)
            for word, tag, p in zip(words, tags, ps, strict=True)
        ]
        return ["sentence", "word", "predicted", "probability"], rows
    if isinstance(data, Questions):
        ends = [(value, f"{p:.6f}") for value, p in zip(said.values, said.probabilities, strict=True)]
        asked = [(q.id, q.text) for q in data.asked]
        return ["id", "question", "predicted", "probability"], [(*a, *b) for a, b in zip(asked, ends, strict=True)]
    assert isinstance(data, Texts)
    texts = list(zip(data.first, data.second, strict=True)) if data.second is not None else [(text,) for text in data.first]
    names = ["first", "second"] if data.second is not None else ["text"]
    if said.values and isinstance(said.values[0], float):
        return [*names, "predicted"], [(*text, f"{value:.6g}") for text, value in zip(texts, said.values, strict=True)]
    rows = zip(texts, said.values, said.probabilities, strict=True)
    return [*names, "predicted", "probability"], [(*text, value, f"{p:.6f}") for text, value, p in rows]
