"""The runner of GLUE and CLUE: official measures, the average, what is missing, and going on where it was."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from selfsup.cli import run
from selfsup.data.text.labelled import open_labelled
from selfsup.data.text.tokenizer import train_tokenizer
from selfsup.evaluation.text_scores import accuracy, f1, matthews, pearson, spearman
from selfsup.models import build_encoder
from selfsup.tasks.labels import benchmark as module
from selfsup.tasks.labels.benchmark import as_table, benchmark, measured, scored
from selfsup.tasks.labels.text_tasks import Said
from selfsup.tasks.labels.text_work import Tuned
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, save_encoder

spec = importlib.util.spec_from_file_location("glue_files", Path(__file__).parents[2] / "data/text/test_glue.py")
assert spec is not None
assert spec.loader is not None
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
FAST: dict[str, Any] = {"steps": 1, "lr": 1e-3, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def encoder() -> TrainedEncoder:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the first second 0 1 2 3 4 5 甲 乙 有 猫 儿 在"] * 2, "wordpiece", vocabulary_size=200)
    text = {"length": 16, "pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}
    network = build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=text)
    data = {"items": 10, "fingerprint": "0", "value_range": None}
    training = {"steps": 1, "batch_size": 1, "seed": 0, "minutes": None}
    return TrainedEncoder(
        network, {"encoder": network.spec, "method": "bert", "options": {}, "data": data, "training": training}, tokenizer
    )


def test_glue_is_the_mean_of_its_nine_tasks(encoder: TrainedEncoder, tmp_path: Path) -> None:
    for task in ["CoLA", *files.PLACES]:
        files.write_glue(tmp_path / "GLUE", task)
    result = benchmark(encoder, tmp_path / "GLUE", **FAST)
    measures = {name: list(task["scores"]) for name, task in result["tasks"].items()}
    one = ["accuracy"]
    assert measures == {
        "CoLA": ["matthews"],
        "SST-2": one,
        "MRPC": ["f1", "accuracy"],
        "STS-B": ["pearson", "spearman"],
        "QQP": ["f1", "accuracy"],
        "MNLI": ["accuracy matched", "accuracy mismatched"],
        "QNLI": one,
        "RTE": one,
        "WNLI": one,
    }
    assert result["missing"] == {}
    means = []
    for task in result["tasks"].values():
        means.append(sum(at["mean"] for at in task["scores"].values()) / len(task["scores"]))
        assert task["score"]["mean"] == pytest.approx(means[-1])
    assert result["average"] == pytest.approx(sum(means) / 9)
    assert "GLUE, all tasks" in _cells(as_table(result))


def _cells(table: Any) -> list[str]:
    return list(table.columns[0].cells)


def test_clue_has_classes_and_spans(encoder: TrainedEncoder, tmp_path: Path) -> None:
    for task in [*files.CLUE, "CMRC"]:
        files.write_clue(tmp_path, task)
    result = benchmark(encoder, tmp_path, seeds=2, scratch=True, **FAST)
    assert list(result["tasks"]) == [*files.CLUE, "CMRC"]
    assert list(result["tasks"]["CMRC"]["scores"]) == ["exact_match"]
    assert result["tasks"]["CSL"]["left_out"] == 2
    for part in ("score", "scratch"):
        at = result["tasks"]["AFQMC"][part]
        assert len((at if part == "score" else at["score"])["each"]) == 2
    assert 0 <= result["scratch_average"] <= 1


def test_missing_tasks_are_named_and_the_average_says_so(
    encoder: TrainedEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("RTE", "CoLA"):
        files.write_glue(tmp_path / "GLUE", task)
    (tmp_path / "GLUE/RTE/dev.tsv").unlink()
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder", encoder.network, encoder.config, encoder.tokenizer)  # type: ignore[arg-type]
    command = ["benchmark", str(tmp_path / "encoder"), "--folder", str(tmp_path / "GLUE"), "--steps", "1", "--lr", "1e-3", "--quiet"]
    assert run(command) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "GLUE, 1 of 9 tasks" in out
    assert "SST-2 (no folder SST-2)" in out
    assert "RTE (no dev.tsv in RTE)" in out
    assert run([*command, "--json", "--tasks", "cola"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["missing"]["RTE"] == "not asked for"
    assert list(result["tasks"]) == ["CoLA"]


def test_tasks_that_are_done_are_not_done_again(encoder: TrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("CoLA", "RTE", "SST-2"):
        files.write_glue(tmp_path / "GLUE", task)
    out, real, asked = tmp_path / "result.json", module._run, list[str]()

    def fails_at_rte(name: str, *rest: Any) -> dict[str, Any]:
        asked.append(name)
        if name == "RTE" and asked.count("RTE") == 1:
            raise RuntimeError("the power went")
        return real(name, *rest)

    monkeypatch.setattr(module, "_run", fails_at_rte)
    with pytest.raises(RuntimeError, match="power"):
        benchmark(encoder, tmp_path / "GLUE", out=out, **FAST)
    assert json.loads(out.read_text())["missing"]["RTE"] == "not done yet"
    result = benchmark(encoder, tmp_path / "GLUE", out=out, **FAST)
    assert asked == ["CoLA", "SST-2", "RTE", "RTE"]
    assert json.loads(out.read_text()) == result
    with pytest.raises(ValueError, match="results of another seeds; choose another --out"):
        benchmark(encoder, tmp_path / "GLUE", out=out, seeds=2, **FAST)


def test_measures_are_the_official_ones() -> None:
    said, true = ["1", "1", "0", "1", "0"], ["1", "0", "0", "1", "1"]
    data = open_labelled(list(zip("abcde", true, strict=True)))
    p, t = [int(x) for x in said], [int(x) for x in true]
    for name, score in (("f1", f1), ("accuracy", accuracy), ("matthews", matthews)):
        assert measured(name, Said(said, []), data) == pytest.approx(score(p, t))
    numbers = open_labelled([("a", "b", x) for x in (0.5, 2.0, 5.0)])
    for name, correlation in (("pearson", pearson), ("spearman", spearman)):
        assert measured(name, Said([1.0, 3.0, 2.0], []), numbers) == pytest.approx(correlation([1, 3, 2], [0.5, 2, 5]))
        assert measured(name, Said([1.0, 1.0, 1.0], []), numbers) == 0.0
    one, two = Tuned(None, 0.1, {"dev": Said(said, [])}, {}, {}), Tuned(None, 0.1, {"dev": Said(true, [])}, {}, {})
    both = scored([one, two], {"dev": data}, ("f1", "accuracy"))
    assert both["score"]["each"] == pytest.approx([(f1(p, t) + accuracy(p, t)) / 2, 1.0])
    assert both["score"]["low"] < both["score"]["mean"] < both["score"]["high"]


def test_mistakes_are_named(encoder: TrainedEncoder, tmp_path: Path) -> None:
    files.write_glue(tmp_path / "GLUE", "CoLA")
    with pytest.raises(ValueError, match="GLUE has no task COPA; there are CoLA"):
        benchmark(encoder, tmp_path / "GLUE", tasks=["COPA"], **FAST)
    with pytest.raises(ValueError, match="nothing of GLUE in it: RTE"):
        benchmark(encoder, tmp_path / "GLUE", tasks=["RTE"], **FAST)
    with pytest.raises(ValueError, match="a folder of GLUE or CLUE"):
        benchmark(encoder, tmp_path, **FAST)
    with pytest.raises(ValueError, match=r"ends in \.json"):
        benchmark(encoder, tmp_path / "GLUE", out=tmp_path / "x.txt", **FAST)
    network = build_encoder("small", channels=1, image_size=8)
    with pytest.raises(ValueError, match="are of text, and this encoder"):
        benchmark(TrainedEncoder(network, {"encoder": network.spec}), tmp_path / "GLUE", **FAST)
