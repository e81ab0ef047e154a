"""Rows of texts that belong together: every format, and what is wrong with a file."""

import gzip
import json
from pathlib import Path

import pytest

from selfsup.data.errors import BadDataError
from selfsup.data.text.related import read_related
from selfsup.data.text.texts import open_text

ROWS = [("a man eats", "someone eats", "nobody eats"), ("a dog runs fast", "an animal moves", "all sleep")]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    names = ("sent0", "sent1", "hard_neg")
    (tmp_path / "bare.tsv").write_text("\n".join("\t".join(row) for row in ROWS))
    (tmp_path / "named.csv").write_text("\n".join(",".join(row) for row in [("id", *names), *[("7", *row) for row in ROWS]]))
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(dict(zip(names, row, strict=True)) | {"id": 7}) + "\n" for row in ROWS)
    columns = ",".join(names)
    assert read_related(tmp_path / "bare.tsv").rows == ROWS
    assert read_related(tmp_path / "named.csv", columns).rows == ROWS
    assert read_related(tmp_path / "rows.jsonl.gz", columns).rows == ROWS
    assert read_related(tmp_path / "named.csv", "sent0, sent1").rows == [row[:2] for row in ROWS]
    assert read_related([list(row) for row in ROWS]).rows == ROWS


def test_items_hold_the_texts_one_after_the_other(tmp_path: Path) -> None:
    items = open_text(ROWS * 5, tokenizer="word", layout="related", length=16, vocabulary_size=50, cache_dir=tmp_path)
    ids = items.batch(items.rows[:2])["text"]
    t = items.tokenizer
    assert t is not None
    assert [" ".join(t.tokens([x for x in row.tolist() if x != t.pad])) for row in ids] == [
        " ".join(f"[CLS] {text} [SEP]" for text in row) for row in ROWS
    ]
    assert items.names[1] == "a dog runs fast"
    again = open_text(ROWS * 5, tokenizer=t, layout="related", length=5, cache_dir=tmp_path)
    assert [s.reason for s in again.skipped] == ["5 texts were cut to 3 tokens"]
    written = open_text([("[CLS] a man", "eats")], tokenizer=t, layout="related", length=8)
    assert written.batch(written.rows)["text"][0].tolist().count(t.start) == 2


def test_incomplete_rows_are_left_out_and_counted() -> None:
    found = read_related([*ROWS, ("a man eats", "", "x"), ("only two", "texts")])
    assert (found.rows, found.left_out) == (ROWS, 2)


def test_mistakes_are_named(tmp_path: Path) -> None:
    one = tmp_path / "one.tsv"
    one.write_text("a text\nanother\n")
    with pytest.raises(ValueError, match="two or three texts, got one with 1"):
        read_related(one)
    named = tmp_path / "named.csv"
    named.write_text("premise,label\na,b\n")
    with pytest.raises(ValueError, match='a column "hypothesis"; there are premise, label'):
        read_related(named, "premise,hypothesis")
    with pytest.raises(ValueError, match="two or three columns with commas"):
        read_related(named, "premise")
    with pytest.raises(ValueError, match="there is no file"):
        read_related(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match=r"in \.tsv, \.csv"):
        read_related(tmp_path)
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(ValueError, match="names of columns; there are a, b"):
        read_related(lines)
    with pytest.raises(ValueError, match="a list of single texts"):
        read_related(["ab", "cd"])
    with pytest.raises(BadDataError, match=r"no row with all of its texts \(1 rows\)"):
        read_related([("a", " ")])
