"""What is nearest to what: vectors whose neighbours are known, words, texts and images through the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.cli import run as command
from selfsup.data.text.vector_files import WordVectors, write_word_vectors

WORDS = {
    "king": (1.0, 1.0, 0.0, 0.1),
    "queen": (1.0, -1.0, 0.0, 0.1),
    "man": (0.0, 1.0, 0.1, 0.0),
    "woman": (0.0, -1.0, 0.1, 0.0),
    "apple": (0.0, 0.0, 1.0, 0.0),
    "pear": (0.05, 0.0, 1.0, 0.1),
}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """An encoder folder with a table of six words."""
    write_word_vectors(tmp_path / "six.bin", WordVectors(list(WORDS), np.array(list(WORDS.values()), np.float32)), binary=True)
    assert command(["import", str(tmp_path / "six.bin"), "--out", str(tmp_path / "six")]) == 0
    return tmp_path / "six"


def test_words_and_analogies(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = selfsup.similar(words, "apple", count=2)
    assert answer.query == "apple"
    assert answer.found[0][0] == "pear"
    cosine = np.dot(WORDS["apple"], WORDS["pear"]) / np.linalg.norm(WORDS["pear"])
    assert answer.found[0][1] == pytest.approx(cosine, abs=1e-6)
    assert [a.found[0][0] for a in selfsup.similar(words, ["king - man + woman", "woman - queen + king"], count=1)] == ["queen", "man"]
    capsys.readouterr()
    assert command(["similar", str(words), "king - man + woman", "--count", "1"]) == 0
    assert "queen" in capsys.readouterr().out
    assert command(["similar", str(words), "kingg"]) == 2
    assert 'no word "kingg" among 6; there are king' in " ".join(capsys.readouterr().err.split())


def test_scores_of_words(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.txt").write_text(": family\nman king woman queen\nman king woman prince\n: fruit\n")
    (tmp_path / "w.txt").write_text("apple\tpear\t9\nking\tqueen\t5\nking\tapple\t1\nking\tplum\t2\n")
    asked = ["words", str(words), "--analogies", str(tmp_path / "q.txt"), "--similarity", str(tmp_path / "w.txt")]
    capsys.readouterr()
    assert command([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["analogies"]["accuracy"] == 1.0
    assert found["analogies"]["unknown"] == 1
    assert found["similarity"]["w.txt"]["pairs"] == 3
    assert found["similarity"]["w.txt"]["unknown"] == 1
    assert command(asked) == 0
    assert "all analogies" in capsys.readouterr().out
    assert command(["words", str(words)]) == 2
    assert "say what to score by" in " ".join(capsys.readouterr().err.split())


def test_vectors_leave_as_they_came(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", str(words), "--format", "word2vec", "--out", str(tmp_path / "again.bin")]) == 0
    assert "6 words in" in capsys.readouterr().out
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "six.bin").read_bytes()
    assert command(["export", str(words), "--out", str(tmp_path / "folder")]) == 2
    assert "only transformers of text can be exported" in " ".join(capsys.readouterr().err.split())


def test_texts_are_searched(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("apple pear pear\nking queen\nwoman queen woman\n")
    (answer,) = selfsup.similar(words, "apple apple", among=tmp_path / "texts.txt", count=9)
    assert answer.found[0][0] == "apple pear pear"
    assert len(answer.found) == 3
    (tmp_path / "pairs.tsv").write_text("5\tapple pear\tpear apple\n0\tking\tapple\n3\tking king\tking queen\n")
    capsys.readouterr()
    assert command(["sts", str(words), str(tmp_path / "pairs.tsv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] == pytest.approx(1.0)
    assert command(["sts", str(words), str(tmp_path / "pairs.tsv")]) == 0
    assert "pairs" in capsys.readouterr().out


def test_images_are_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        colours = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(colours.repeat(8, 0).repeat(8, 1)).save(tmp_path / "photos" / f"{i:02d}.png")
    settings: dict[str, Any] = {"encoder": "small", "steps": 1, "batch_size": 4, "quiet": True, "device": "cpu"}
    run = selfsup.pretrain(tmp_path / "photos", "simclr", out=tmp_path / "run", **settings)
    (answer,) = selfsup.similar(run.path, str(tmp_path / "photos/05.png"), among=tmp_path / "photos", count=3)
    assert answer.query == "05.png"
    assert answer.found[0] == ("05.png", pytest.approx(1.0, abs=1e-3))
    assert len(answer.found) == 3
    values = [value for _, value in answer.found]
    assert values == sorted(values, reverse=True)
    whole = selfsup.similar(run.path, tmp_path / "photos", among=tmp_path / "photos", count=1)
    assert [a.found[0][0] for a in whole] == [a.query for a in whole]
    assert command(["similar", str(run.path), str(tmp_path / "photos/05.png")]) == 2
    assert "say what to search: --among DATA" in " ".join(capsys.readouterr().err.split())
