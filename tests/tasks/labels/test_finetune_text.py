"""Fine-tuning of text: each task is learned and measured on fresh text, and the folder says what was measured."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selfsup
from selfsup.cli import run
from selfsup.data.text.labelled import Labelled, open_labelled
from selfsup.data.text.tokenizer import train_tokenizer
from selfsup.evaluation.few_label import interval, wilson
from selfsup.models import build_encoder
from selfsup.tasks.labels import text_work as module
from selfsup.tasks.labels.finetune import as_table, finetune
from selfsup.tasks.labels.text_model import TrainedText
from selfsup.tasks.labels.text_tasks import task_for
from selfsup.tasks.labels.text_training import TextNetwork
from selfsup.tasks.labels.text_work import GRID, Budget, drawn, held_out_examples
from selfsup.tasks.saved.trained_classifier import TrainedClassifier, predict
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load
from selfsup.tasks.saved.verify import verify

GOOD, BAD, PLAIN = ["fine", "great", "lovely"], ["poor", "awful", "dull"], ["the", "film", "was", "a", "night", "story", "and", "so"]
QUIET: dict[str, Any] = {"quiet": True, "device": "cpu"}
FAST: dict[str, Any] = {**QUIET, "lr": 2e-3, "how": "full", "scratch": False}


@pytest.fixture(scope="module")
def encoder() -> TrainedEncoder:
    """A network that was not trained, and a tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(GOOD + BAD + PLAIN + list("0123456789?"))] * 2, "wordpiece", vocabulary_size=300)
    text = {"length": 24, "pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}
    network = build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=text)
    data = {"items": 10, "fingerprint": "0", "value_range": None}
    training = {"steps": 1, "batch_size": 1, "seed": 0, "minutes": None}
    return TrainedEncoder(
        network, {"encoder": network.spec, "method": "bert", "options": {}, "data": data, "training": training}, tokenizer
    )


def material(task: str, n: int, seed: int) -> Any:
    draw = np.random.default_rng(seed)

    def plain(k: int) -> list[str]:
        return draw.choice(PLAIN, k).tolist()

    rows: list[Any] = []
    for i in range(n):
        word = (GOOD, BAD)[i % 2][draw.integers(3)]
        before, after = plain(draw.integers(1, 5)), plain(draw.integers(1, 5))
        sentence = " ".join([*before, word, *after])
        if task == "classify":
            rows.append((sentence, ("good", "bad")[i % 2]))
        elif task == "pairs":
            other = (GOOD, BAD)[draw.integers(2)][draw.integers(3)]
            rows.append((sentence, other, 0.25 + (word in GOOD) + 2 * (other in GOOD)))
        elif task == "tokens":
            rows.append(([*before, word, *after], [*["PLAIN"] * len(before), "ADJ", *["PLAIN"] * len(after)]))
        else:
            answer = " ".join(draw.choice(list("0123456789"), draw.integers(1, 3)))
            passage = " ".join([*plain(draw.integers(1, 15)), answer, *plain(draw.integers(1, 10))])
            qas = [{"id": str(i), "question": "the film?", "answers": [{"text": answer, "answer_start": passage.index(answer)}]}]
            rows.append({"context": passage, "qas": qas})
    return {"data": [{"paragraphs": rows}]} if task == "answers" else rows


@pytest.mark.parametrize(
    ("task", "least", "steps"), [("classify", 0.9, 25), ("pairs", 0.8, 30), ("tokens", 0.95, 12), ("answers", 0.5, 40)]
)
def test_what_was_asked_is_learned_and_the_folder_says_it_again(
    encoder: TrainedEncoder, tmp_path: Path, task: str, least: float, steps: int
) -> None:
    test = material(task, 60, 1)
    made = finetune(encoder, material(task, 300, 0), test, out=tmp_path / "out", steps=steps, **FAST)
    about = made.config["finetuning"]
    measure, at = next(iter(about["tuned"]["scores"].items()))
    assert about["task"] == task
    assert at["mean"] > least
    loaded = TrainedText(tmp_path / "out")
    data = open_labelled(test)
    assert loaded.task.score(loaded.predict(data, device="cpu"), data)[measure] == pytest.approx(at["mean"], abs=1e-9)
    assert set(verify(tmp_path / "out")) == {tmp_path / "out/encoder", tmp_path / "out/classifier"}
    assert load(tmp_path / "out").embed(["the film"]).shape == (1, 128)
    assert load(tmp_path / "out/encoder").tokenizer is not None
    assert "fine-tuning | full, on 300 labels" in (tmp_path / "out/encoder/README.md").read_text()
    found = predict(tmp_path / "out", test, out=tmp_path / "p.tsv")
    assert len(found.names) == 60
    head, *rows = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()]
    heads = {"classify": "text", "pairs": "first second", "tokens": "sentence word", "answers": "id question"}
    assert head == [*heads[task].split(), "predicted", *(["probability"] if task != "pairs" else [])]
    said = [x for value in found.classes for x in (value if isinstance(value, list) else [value])]
    assert [row[head.index("predicted")] for row in rows] == [x if isinstance(x, str) else f"{x:.6g}" for x in said]
    assert as_table(about).row_count == 1


def test_texts_without_labels_are_predicted(encoder: TrainedEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = "".join(f"{text}\t{label}\n" for text, label in material("classify", 100, 0))
    (tmp_path / "train.tsv").write_text(train)
    (tmp_path / "new.txt").write_text("the film was great\nthe film was awful\n")
    made = finetune(encoder, tmp_path / "train.tsv", out=tmp_path / "out", steps=15, **FAST)
    assert "scores" not in made.config["finetuning"]["tuned"]
    with pytest.raises(ValueError, match=r"a classifier of text; use selfsup\.predict"):
        TrainedClassifier(tmp_path / "out")
    assert run(["predict", str(tmp_path / "out"), str(tmp_path / "new.txt"), "--out", str(tmp_path / "p.csv")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'p.csv'}: 2 items, 2 different predictions\n"
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["text", "predicted"], ["the film was great", "good"], ["the film was awful", "bad"]]
    assert all(0.5 < float(row[2]) <= 1 for row in rows[1:])


class Fake:
    """Stands for the training: good at one rate only, and remembers what it was given."""

    def __init__(self, good: float) -> None:
        self.good, self.calls = good, list[Any]()

    def __call__(self, build: Any, task: Any, rows: Any, index: np.ndarray, **settings: Any) -> TextNetwork:
        torch.manual_seed(settings["seed"])
        self.calls.append((set(index.tolist()), settings["lr"], settings["seed"], settings["steps"], settings["frozen"], build.__name__))
        network = TextNetwork(build(), task.outputs, per_token=task.per_token).eval().requires_grad_(False)
        network.head.weight.mul_(0.0 if settings["lr"] == self.good else 1e4)
        return network


@pytest.mark.parametrize("good", GRID)
def test_the_rate_is_the_best_on_held_out_examples_and_seeds_share_it(
    encoder: TrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: float
) -> None:
    fake = Fake(good)
    monkeypatch.setattr(module, "train_text", fake)
    made = finetune(encoder, material("classify", 100, 0), material("classify", 20, 1), out=tmp_path / "out", seeds=3, epochs=2.0, **QUIET)
    assert [call[-1] for call in fake.calls] == ["_pretrained"] * 6 + ["_untrained"] * 6
    for calls in (fake.calls[:6], fake.calls[6:]):
        assert [lr for _, lr, *_ in calls] == [*GRID, good, good, good]
        assert [seed for _, _, seed, *_ in calls] == [0, 0, 0, 0, 1, 2]
        assert {steps for *_, steps, _, _ in calls} == {7}  # also without the held-out ones: two passes over 100 rows
        trials, whole = [call[0] for call in calls[:3]], [call[0] for call in calls[3:]]
        assert trials[0] == trials[1] == trials[2]
        assert len(trials[0]) == 80
        assert all(rows == set(range(100)) for rows in whole)
    about = made.config["finetuning"]
    for row in (about["tuned"], about["scratch"]):
        at = row["scores"]["accuracy"]
        assert len(at["each"]) == 3
        assert at["mean"] == pytest.approx(interval(at["each"]).mean)
        assert row["learning_rates"] == [good] * 3
    assert as_table(about).row_count == 2


def test_held_out_are_a_fifth_of_each_class_and_whole_passages() -> None:
    texts = open_labelled(material("classify", 50, 0) + [("so", "rare")] * 5)
    held = held_out_examples(task_for(texts), texts, np.arange(55), 0)
    assert [sum(held[i] for i, label in enumerate(texts.labels) if label == name) for name in ("good", "bad", "rare")] == [5, 5, 1]
    document = material("answers", 10, 0)
    for paragraph in document["data"][0]["paragraphs"]:
        paragraph["qas"] *= 4
    asked = open_labelled(document)
    held = held_out_examples(task_for(asked), asked, np.arange(40), 0)
    assert held.sum() == 8
    assert len({asked.asked[i].passage for i in np.flatnonzero(held)}) == 2


def test_labels_are_drawn_of_each_class_and_fractions_of_all() -> None:
    def count(data: Labelled, **amount: Any) -> int:
        return len(drawn(task_for(data), data, amount.get("labels"), amount.get("fraction"), 0))

    texts, tagged = open_labelled(material("classify", 50, 0)), open_labelled(material("tokens", 50, 0))
    assert (count(texts, labels=3), count(texts, fraction=0.1), count(texts)) == (6, 4, 50)
    assert (count(tagged, fraction=0.1), count(tagged)) == (5, 50)
    with pytest.raises(ValueError, match=r"--labels counts texts of each class; .* take a --fraction"):
        count(tagged, labels=3)


def test_budgets() -> None:
    assert Budget(None, 7).steps_for(1000) == 7
    assert Budget(2.0, None).steps_for(100) == 7
    assert Budget(None, None).steps_for(100) == 200
    assert Budget(None, None).steps_for(32_000) == 4000


def test_one_seed_has_wilsons_interval_where_items_are_counted(encoder: TrainedEncoder, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**FAST, "steps": 1}
    for task, measure, has in (("classify", "accuracy", True), ("classify", "macro_f1", False), ("tokens", "accuracy", False)):
        made = finetune(encoder, material(task, 40, 0), material(task, 20, 1), out=tmp_path / f"{task}-{measure}", **settings)
        at = made.config["finetuning"]["tuned"]["scores"][measure]
        expected = wilson(round(20 * at["mean"]), 20) if has else None
        assert at["low"] == (expected.low if expected else None)


def test_what_was_left_out_or_cut_is_counted(encoder: TrainedEncoder, tmp_path: Path) -> None:
    train = [*material("classify", 40, 0), ("the film", None), ("the film " * 30, "good")]
    test = [*material("classify", 20, 1), ("a story", "strange"), ("so", None)]
    about = finetune(encoder, train, test, out=tmp_path / "out", **{**FAST, "steps": 1}).config["finetuning"]
    assert (about["train_items"], about["train_items_without_label"], about["train_cut"]) == (41, 1, 1)
    assert (about["test_items"], about["test_items_without_label"], about["test_items_of_classes_not_in_train"]) == (21, 1, 1)
    said = str(as_table(about).caption)
    assert "train: 1 were cut to the encoder's length" in said
    assert "test: 1 labels are of classes that were not learned, and count as wrong" in said


def test_layers_move_by_their_rates_and_a_frozen_encoder_stays(encoder: TrainedEncoder, tmp_path: Path) -> None:
    def moved(how: str, **settings: Any) -> list[float]:
        made = finetune(
            encoder, material("classify", 64, 0), out=tmp_path / how, how=how, steps=4, lr=1e-3, scratch=False, **settings, **QUIET
        )
        names = ("tokens.weight", "layers.0.up.weight", "layers.1.up.weight")
        return [float((made.encoder.network.get_parameter(n) - encoder.network.get_parameter(n)).abs().max()) for n in names]

    assert moved("frozen") == [0, 0, 0]
    full, layers = moved("full"), moved("layerwise", layer_decay=0.1)
    ratios = [a / b for a, b in zip(layers, full, strict=True)]
    assert 3e-4 < ratios[0] < 3e-3
    assert 3e-3 < ratios[1] < 3e-2
    assert 0.03 < ratios[2] < 0.3


def test_the_command_prints_a_table_and_json(encoder: TrainedEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from selfsup.tasks.saved.trained_encoder import save_encoder

    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder", encoder.network, encoder.config, encoder.tokenizer)  # type: ignore[arg-type]
    for part, seed in (("train", 0), ("test", 1)):
        rows = [{"first": a, "other": b, "gold": c} for a, b, c in material("pairs", 40, seed)]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ["--column", "first", "--second", "other", "--label", "gold"]
    where = ["--train", str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "test.jsonl"), *columns]
    short = ["--steps", "1", "--lr", "1e-3", "--quiet"]
    assert run(["finetune", str(tmp_path / "encoder"), *where, "--out", str(tmp_path / "a"), *short, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert list(about["tuned"]["scores"]) == list(about["scratch"]["scores"]) == ["spearman", "pearson"]
    assert run(["finetune", str(tmp_path / "encoder"), *where, "--out", str(tmp_path / "b"), *short]) == 0
    out = capsys.readouterr().out
    assert "40 pairs to learn from" in " ".join(out.split())
    assert "from scratch" in out


MISTAKES: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "no labels": (["a", "b"], None, {}, "has no labels; name their column with --label"),
    "one class": ([("a", "x"), ("b", "x")], None, {}, 'labels of one class only \\("x"\\)'),
    "every text its own class": ([(str(i), str(i)) for i in range(30)], None, {}, "30 classes among 30 texts"),
    "no answers": ({"data": [{"paragraphs": [{"context": "a", "qas": [{"id": 1, "question": "b"}]}]}]}, None, {}, "no answers to learn"),
    "test of another kind": ([("a", "x"), ("b", "y")], [("a", "b", "x")], {}, "holds pairs of texts, but --task classify"),
    "test without labels": ([("a", "x"), ("b", "y")], ["a"], {}, "no labels to measure by"),
    "test of other classes": ([("a", "x"), ("b", "y")], [("a", "z")], {}, r"no label of list \(z\) is one that was learned \(x, y\)"),
    "test without scores": ([("a", "0.5"), ("b", "1")], [("a", "z")], {}, '"z" is no score'),
    "image settings": ([("a", "x"), ("b", "y")], None, {"flip": False}, "text is not augmented"),
    "too many labels": ([("a", "x"), ("b", "y")], None, {"labels": 2}, "has only 1 labelled items"),
    "two lengths": ([("a", "x"), ("b", "y")], None, {"steps": 1, "epochs": 1.0}, "give one of them"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_before_anything_is_written(encoder: TrainedEncoder, tmp_path: Path, mistake: str) -> None:
    train, test, settings, said = MISTAKES[mistake]
    with pytest.raises(ValueError, match=said):
        inspect.unwrap(finetune)(encoder, train, test, out=tmp_path / "out", **settings, **QUIET)
    assert not (tmp_path / "out").exists()


def test_images_have_no_columns(tmp_path: Path) -> None:
    network = build_encoder("small", channels=1, image_size=8)
    data = {"items": 10, "fingerprint": "0", "value_range": None}
    trained = TrainedEncoder(network, {"encoder": network.spec, "data": data})
    with pytest.raises(ValueError, match="are of text, and this encoder takes other data"):
        selfsup.finetune(trained, "nowhere", out=tmp_path / "out", task="classify", **QUIET)
