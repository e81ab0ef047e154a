"""`selfsup evaluate` of an encoder of text: beside a bag of words, with labels in tables, on the page."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from selfsup.tasks.labels.evaluate import NAMES, as_table, evaluate
from selfsup.tasks.pretraining.pretrain import pretrain

FEW: Any = {"counts": (2, 5), "seeds": 2, "scratch_images": 64, "scratch_few_images": 64, "quiet": True}


@pytest.fixture(scope="module")
def run(material: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, settings = material("bert")
    return pretrain(data, "bert", out=tmp_path_factory.mktemp("text") / "run", batch_size=16, steps=2, quiet=True, **settings).path


def labelled(path: Path, n: int, seed: int) -> Path:
    """Texts of the words of `material`; which of two words is in them tells the class."""
    rng = np.random.default_rng(seed)
    rows = [(" ".join(["ban"] * (i % 2) + ["mus"] * (1 - i % 2) + list(rng.choice(["der", "kis", "lot"], 4))), i % 2) for i in range(n)]
    rows = [(rows[i][0], ("bad", "good")[rows[i][1]]) for i in rng.permutation(n)]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"review": text, "verdict": name}) for text, name in rows))
    else:
        path.write_text("\n".join(f"{text}\t{name}" for text, name in rows))
    return path


def test_the_rows_of_text(run: Path, tmp_path: Path) -> None:
    train, test = labelled(tmp_path / "train.tsv", 40, 0), labelled(tmp_path / "test.tsv", 30, 1)
    result = evaluate(run, train, test, **FEW)
    assert list(result) == ["encoder", "bag_of_words", "untrained", "scratch", "protocol"]
    assert result["bag_of_words"]["linear_top1"] == 1.0
    assert list(result["scratch"]["few_label"]) == ["2", "5"]
    assert not [name for name in result["protocol"] if "flip" in name or "pixel" in name or "image_size" in name]
    table = as_table(result)
    assert table.row_count == 4
    assert "TF-IDF of the encoder's tokens" in str(table.caption)
    console = Console(width=80, file=io.StringIO())
    curve = {str(n): {"mean": 0.5, "low": 0.45, "high": 0.55} for n in (1, 2, 5, 10, 20, 50, 100)}
    console.print(as_table({**result, **{row: {**result[row], "few_label": curve} for row in NAMES if row in result}}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in shown for name in ("this encoder", "bag of words", "untrained", "from scratch"))
    assert "…" not in shown
    assert shown.count("50.0") == 4 * 7
    page = (run / "report.html").read_text()
    assert "Bag of words" in page
    assert "Raw pixels" not in page


def test_columns_are_named_and_missing_labels_are_said(run: Path, tmp_path: Path) -> None:
    train, test = labelled(tmp_path / "train.jsonl", 12, 0), labelled(tmp_path / "test.jsonl", 12, 1)
    named: Any = {**FEW, "protocol": ("knn",), "column": "review"}
    result = evaluate(run, train, test, label="verdict", **named)
    assert set(result["encoder"]) == {"knn_top1"}
    with pytest.raises(ValueError, match=r"no labels; classes are needed: a second column in \.tsv"):
        evaluate(run, train, test, **named)
