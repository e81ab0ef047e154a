"""Fine-tuning: what is learned from which labels, figures that can be done again from the folder, and mistakes."""

import csv
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import selfsup
from selfsup.data import Items, open_data
from selfsup.demo import split
from selfsup.engine.checkpoint import DamagedError
from selfsup.evaluation.few_label import few_label, interval, wilson
from selfsup.models import build_encoder
from selfsup.tasks.labels import finetune as module
from selfsup.tasks.labels.finetune import GRID, as_table, finetune
from selfsup.tasks.saved.trained_classifier import TrainedClassifier
from selfsup.tasks.saved.trained_encoder import TrainedEncoder
from selfsup.tasks.saved.verify import verify

Data = tuple[TrainedEncoder, Items, Items]
QUIET: dict[str, Any] = {"quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> Data:
    """A network with the digits' statistics, not trained any further, and digits."""
    torch.manual_seed(0)
    network = build_encoder("small", channels=1, image_size=8, mean=[0.3], std=[0.38])
    images, labels = load_digits(return_X_y=True)
    items = open_data((images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), cache=False)
    train, test = split(replace(items, labels=labels.astype(np.int64), classes=tuple("0123456789")))
    data = {"items": 10, "fingerprint": "0", "value_range": None}
    training = {"steps": 1, "batch_size": 1, "seed": 0, "minutes": None}
    config = {"encoder": network.spec, "method": "simclr", "options": {}, "data": data, "training": training}
    return TrainedEncoder(network, config), train, test.subset(np.arange(200))


def moved(encoder: TrainedEncoder, classifier: TrainedClassifier) -> list[float]:
    """How far each kernel has gone, from the input on."""
    pairs = zip(encoder.network.parameters(), classifier.encoder.network.parameters(), strict=True)
    return [float((a - b).abs().mean()) for a, b in pairs if a.ndim > 1]


def test_frozen_is_the_few_label_curve(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    made = finetune(encoder, train, test, out=tmp_path / "out", how="frozen", labels=5, seeds=3, scratch=False, **QUIET)
    x, y = (torch.from_numpy(encoder.embed(items)) for items in (train, test))
    found = few_label(x, torch.from_numpy(train.labels), y, torch.from_numpy(test.labels), counts=(5,), seeds=3)["5"]
    assert made.config["finetuning"]["tuned"]["accuracy"] == pytest.approx(found._asdict(), abs=1e-9)
    assert sum(moved(encoder, made)) == 0
    assert made.config["finetuning"]["tuned"]["learning_rates"] == [None] * 3
    assert made.config["finetuning"]["labels"] == 50


def test_the_folder_says_what_was_measured(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    out = tmp_path / "out"
    assert selfsup.finetune(encoder, train, test, out=out, how="frozen", labels=5, scratch=False, **QUIET).classes == list("0123456789")
    made = TrainedClassifier(out)
    found = selfsup.predict(out, test, out=tmp_path / "predictions.csv")
    right = sum(name == test.classes[label] for name, label in zip(found.classes, test.labels, strict=True))
    assert made.config["finetuning"]["tuned"]["accuracy"] == pytest.approx(wilson(right, len(test))._asdict())
    assert found.probabilities == pytest.approx(made.probabilities(test).max(axis=1))
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(test.names)
    assert [row["class"] for row in rows] == list(found.classes)
    assert [float(row["probability"]) for row in rows] == pytest.approx(found.probabilities.tolist(), abs=1e-6)
    assert (selfsup.load(out).embed(test) == encoder.embed(test)).all()
    assert "fine-tuning | frozen, on 50 labels of 10 classes" in (out / "encoder/README.md").read_text()
    assert set(verify(out)) == {out / "encoder", out / "classifier"}
    weights = out / "classifier/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedError, match="classifier"):
        TrainedClassifier(out)


def test_layers_move_by_their_rates_and_digits_are_learned(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    settings: dict[str, Any] = {"labels": 20, "lr": 2e-3, "steps": 12, "flip": False, "scratch": False, **QUIET}
    full = finetune(encoder, train, test, out=tmp_path / "full", how="full", **settings)
    layers = finetune(encoder, train, test, out=tmp_path / "layers", how="layerwise", layer_decay=0.1, **settings)
    ratio = [a / b for a, b in zip(moved(encoder, layers), moved(encoder, full), strict=True)]
    assert 3e-5 < ratio[0] < 3e-4  # the stem, depth 4
    assert 0.05 < ratio[-2] < 0.2  # the last block, depth 1
    said = full.config["finetuning"]["tuned"]
    assert said["learning_rates"] == [2e-3]
    assert said["accuracy"]["mean"] > 0.6, "0.1 is chance, and 0.4 a frozen untrained network with as many labels"
    assert full.config["finetuning"]["images"] == 12 * 64


def test_it_begins_where_frozen_ends(data: Data, tmp_path: Path) -> None:
    encoder, train, _ = data
    settings: dict[str, Any] = {"labels": 5, "scratch": False, "augment": False, **QUIET}
    frozen = finetune(encoder, train, out=tmp_path / "frozen", how="frozen", **settings)
    hardly = finetune(encoder, train, out=tmp_path / "full", how="full", lr=1e-9, steps=1, **settings)
    for name in ("weight", "bias"):
        torch.testing.assert_close(hardly._linear[name], frozen._linear[name], atol=1e-6, rtol=1e-6)
    assert max(moved(encoder, hardly)) < 1e-6


def test_seeds_give_students_interval_and_the_first_is_kept(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    settings: dict[str, Any] = {"fraction": 0.05, "how": "frozen", "scratch": False, **QUIET}
    three = finetune(encoder, train, test, out=tmp_path / "three", seeds=3, **settings)
    each = [finetune(encoder, train, test, out=tmp_path / str(k), seed=k, **settings) for k in range(3)]
    shares = [one.config["finetuning"]["tuned"]["accuracy"]["mean"] for one in each]
    assert len(set(shares)) > 1
    assert three.config["finetuning"]["tuned"]["accuracies"] == pytest.approx(shares)
    assert three.config["finetuning"]["tuned"]["accuracy"] == pytest.approx(interval(shares)._asdict())
    assert (three.probabilities(test) == each[0].probabilities(test)).all()
    assert (three.probabilities(test) != each[1].probabilities(test)).any()
    sizes = np.bincount(train.labels)
    assert three.config["finetuning"]["labels"] == sum(max(1, round(0.05 * n)) for n in sizes)


class Fake:
    """Stands for the training: good at one rate only, and remembers which items it was given."""

    def __init__(self, good: float) -> None:
        self.good, self.calls = good, []

    def __call__(self, build: Any, items: Items, index: np.ndarray, classes: int, **settings: Any) -> Any:
        assert (settings["head"] is None) == (build.__name__ == "_untrained")
        self.calls.append((index.tolist(), settings["lr"], settings["layer_decay"], settings["seed"], build.__name__))
        means = torch.stack([items.batch(np.flatnonzero(items.labels == c))["image"].float().mean(dim=0) for c in range(classes)])
        head = nn.Linear(64, classes)
        sign = 1.0 if settings["lr"] == self.good else -1.0
        head.weight.data = sign * means.flatten(1) / 255
        head.bias.data = -sign * (means.flatten(1) / 255).square().sum(dim=1) / 2  # the nearest mean, or the farthest
        return type("Scratch", (), {"predict": nn.Sequential(nn.Flatten(), head).requires_grad_(False)})


@pytest.mark.parametrize("good", GRID)
def test_the_rate_is_the_best_on_labels_that_were_held_out(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: float
) -> None:
    encoder, train, test = data
    fake = Fake(good)
    monkeypatch.setattr(module, "train_from_scratch", fake)
    monkeypatch.setattr(module, "save_classifier", lambda *_: None)
    monkeypatch.setattr(module, "TrainedClassifier", lambda *_, **__: object.__new__(TrainedClassifier))
    finetune(encoder, train, test, out=tmp_path / "out", labels=10, seeds=2, how="layerwise", **QUIET)
    assert len(fake.calls) == 2 * 2 * 4
    for first in range(0, 16, 4):
        trials, last = fake.calls[first : first + 3], fake.calls[first + 3]
        assert [lr for _, lr, *_ in trials] == list(GRID)
        assert last[1] == good
        assert len(last[0]) == 100
        for rows, *_ in trials:
            assert len(rows) == 80
            assert set(rows) < set(last[0])
        assert last[2:] == ((0.75, first // 4 % 2, "_pretrained") if first < 8 else (1.0, first // 4 % 2, "_untrained"))
    assert fake.calls[3][0] == fake.calls[11][0] != fake.calls[7][0]  # from scratch on the same labels, another seed on others


def test_with_one_label_of_each_class_nothing_is_held_out(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, train, test = data
    fake = Fake(GRID[0])
    monkeypatch.setattr(module, "train_from_scratch", fake)
    monkeypatch.setattr(module, "save_classifier", lambda *_: None)
    monkeypatch.setattr(module, "TrainedClassifier", lambda *_, **__: object.__new__(TrainedClassifier))
    finetune(encoder, train, test, out=tmp_path / "out", labels=1, **QUIET)
    assert [(len(rows), lr) for rows, lr, *_ in fake.calls] == [(10, 2e-4), (10, 2e-3)]


def test_items_without_a_class_and_unknown_classes_are_counted(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    some = train.labels.copy()
    some[some == 3] = -1  # nobody says what a 3 is
    some[:40] = -1
    few = replace(train, labels=some)
    turned = replace(test, labels=9 - test.labels, classes=tuple(reversed(test.classes)))  # the same names under other numbers
    made, same = (
        finetune(encoder, few, items, out=tmp_path / str(i), how="frozen", labels=10, scratch=False, **QUIET)
        for i, items in enumerate((test, turned))
    )
    said = made.config["finetuning"]
    assert made.classes == [c for c in train.classes if c != "3"]
    assert said["train_items_without_class"] == int((some < 0).sum())
    assert said["labels"] == 90
    assert said["train_items"] == int((some >= 0).sum())
    assert said["test_items_of_classes_not_in_train"] == int((test.labels == 3).sum())
    assert said["tuned"] == same.config["finetuning"]["tuned"]
    right = np.array(made.classes)[made.predict(test)] == np.array(test.classes)[test.labels]
    assert said["tuned"]["accuracy"]["mean"] == pytest.approx(right.mean())
    assert 0.5 < right.mean() < 1
    assert "items without a class" in str(as_table(said).caption)


def test_without_test_data_there_is_a_classifier_and_no_figure(data: Data, tmp_path: Path) -> None:
    encoder, train, _ = data
    said = finetune(encoder, train, out=tmp_path / "out", labels=2, lr=1e-3, steps=1, **QUIET).config["finetuning"]
    assert said["scratch"] is None
    assert "accuracy" not in said["tuned"]
    assert "test_items" not in said
    assert as_table(said).row_count == 1


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "too many labels": ({"labels": 10_000}, r'class "\d" has only \d+ labelled items, got --labels 10000; choose \d+ or less'),
    "two amounts": ({"labels": 5, "fraction": 0.5}, "give one of them"),
    "two lengths": ({"epochs": 5.0, "steps": 5}, "give one of them"),
    "decay of full": ({"how": "full", "layer_decay": 0.5}, "is for --how layerwise"),
    "decay above 1": ({"layer_decay": 2.0}, "at most 1, got 2.0"),
    "fraction above 1": ({"fraction": 2.0}, "at most 1, got 2.0"),
    "no labels at all": ({"labels": 0}, "--labels must be a positive"),
    "rate": ({"lr": float("nan")}, "--lr must be a positive"),
    "rate of frozen": ({"how": "frozen", "lr": 1e-3, "scratch": False}, "solved exactly"),
    "unknown way": ({"how": "half"}, "frozen, full, layerwise, got 'half'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(data: Data, tmp_path: Path, mistake: str) -> None:
    encoder, train, test = data
    settings, said = MISTAKES[mistake]
    with pytest.raises(ValueError, match=said):
        inspect.unwrap(finetune)(encoder, train, test, out=tmp_path / "out", **settings, **QUIET)
    assert not (tmp_path / "out").exists()


def test_other_data_is_refused(data: Data, tmp_path: Path) -> None:
    encoder, train, test = data
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(ValueError, match="not empty; choose another --out"):
        finetune(encoder, train, out=tmp_path / "full", **QUIET)
    with pytest.raises(ValueError, match="has no labels"):
        finetune(encoder, replace(train, labels=None), out=tmp_path / "out", **QUIET)
    with pytest.raises(ValueError, match=r"labels of one class only \(7\)"):
        finetune(encoder, train.subset(np.flatnonzero(train.labels == 7)), out=tmp_path / "out", **QUIET)
    with pytest.raises(ValueError, match="no class of"):
        finetune(encoder, train, replace(test, classes=tuple("abcdefghij")), out=tmp_path / "out", **QUIET)
    with pytest.raises(ValueError, match="no classifier/ in it"):
        selfsup.predict(tmp_path, test)
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        selfsup.predict(tmp_path, test, out=tmp_path / "p.txt")
