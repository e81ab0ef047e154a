"""Labelled text: every published layout is read as what it is, and what does not fit is said."""

import gzip
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from selfsup.data.errors import BadDataError
from selfsup.data.text.labelled import Questions, Tagged, Texts, open_labelled, task_of

CONLLU = """# newdoc id = a
# text = Don't go.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tunsaid\tunsaid\tVERB\tVB\t_\t_\t_\t_\t_
4\t.\t.\t_\t.\t_\t3\tpunct\t_\t_

# text = Go
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_"""
SQUAD: dict[str, Any] = {
    "data": [
        {
            "paragraphs": [
                {"context": "Ann has a cat.", "qas": [{"id": 1, "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}]}
            ]
        },
        {
            "paragraphs": [
                {
                    "context": "It rains.",
                    "qas": [
                        {"id": "b", "question": "Where?", "answers": [], "is_impossible": True},
                        {"id": "c", "question": "What?", "is_impossible": True, "answers": [{"text": "It", "answer_start": 0}]},
                    ],
                }
            ]
        },
    ]
}


def texts(found: object) -> tuple[Any, Any, Any]:
    assert isinstance(found, Texts)
    return found.first, found.second, found.labels


TABLES: dict[str, tuple[str, dict[str, Any], tuple[Any, Any, Any]]] = {
    "text and label": ('a "b\t1\nc\t0\n', {}, (('a "b', "c"), None, ("1", "0"))),
    "header": ("label\tsentence\n1\ta\n\t\n0\tc\n", {}, (("a", "c"), None, ("1", "0"))),
    "no label": ("a\nb\n", {}, (("a", "b"), None, (None, None))),
    "pairs without a header": ("a\tb\tyes\nc\td\tno\n", {}, (("a", "c"), ("b", "d"), ("yes", "no"))),
    "scores first": ("3.8\ta\tb\n\tc\td\n", {}, (("a", "c"), ("b", "d"), ("3.8", None))),
    "three numbers": ("1\t2\t0\n3\t4\t1\n", {}, (("1", "3"), ("2", "4"), ("0", "1"))),
    "pairs by their names": ("index\tquestion\tsentence\tlabel\n0\ta\tb\tx\n", {}, (("a",), ("b",), ("x",))),
    "pairs, but one text is wanted": ("question\tsentence\tlabel\na\tb\tx\n", {"task": "classify"}, (("b",), None, ("x",))),
    "two columns as a pair": ("a\tb\n", {"task": "pairs"}, (("a",), ("b",), (None,))),
    "named columns": ("x\ty\tz\n1\ta\tb\n", {"column": "y", "second": "z", "label": "x"}, (("a",), ("b",), ("1",))),
    "a row without its end": ("sentence\tlabel\na\n", {}, (("a",), None, (None,))),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_as_what_they_are(tmp_path: Path, name: str) -> None:
    text, said, expected = TABLES[name]
    plain, packed = tmp_path / "a.tsv", tmp_path / "b.tsv.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert texts(open_labelled(plain, **said)) == texts(open_labelled(str(packed), **said)) == expected


def test_other_files_hold_the_same(tmp_path: Path) -> None:
    expected = (("a, b", "c"), ("x", "y"), ("1", None))
    (tmp_path / "a.csv").write_text('premise,hypothesis,label\n"a, b",x,1\nc,y,\n')
    rows = [{"premise": "a, b", "hypothesis": "x", "label": 1}, {"premise": "c", "hypothesis": "y", "label": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert texts(open_labelled(tmp_path / name)) == expected
    assert texts(open_labelled([("a, b", "x", 1), ("c", "y", None)])) == expected
    for label in ("pos", "neg"):
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "folder" / label / "0.txt").write_text(f"so {label}")
    assert texts(open_labelled(tmp_path / "folder")) == (("so neg", "so pos"), None, ("neg", "pos"))
    (tmp_path / "lines.txt").write_text("a\nb\n")
    assert texts(open_labelled(tmp_path / "lines.txt")) == (("a", "b"), None, (None, None)) == texts(open_labelled(["a", "b"]))


def test_words_of_conllu_are_those_with_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU)
    (tmp_path / "a.conllu.gz").write_bytes(gzip.compress(CONLLU.encode()))
    for name in ("a.conllu", "a.conllu.gz"):
        found = open_labelled(tmp_path / name)
        assert isinstance(found, Tagged)
        assert found.words == (("Do", "n't", "go", "."), ("Go",))
        assert found.tags == (("AUX", "PART", "VERB", None), ("VERB",))
    xpos = open_labelled(tmp_path / "a.conllu", label="xpos")
    assert isinstance(xpos, Tagged)
    assert xpos.tags[0] == ("VBP", "RB", "VB", ".")
    assert task_of(found) == "tokens"
    listed = open_labelled([(["Do", "go"], ["AUX", "VERB"])])
    assert isinstance(listed, Tagged)
    assert listed.words == (("Do", "go"),)


def test_questions_know_their_passage_and_answers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SQUAD))
    for data in (SQUAD, tmp_path / "a.json"):
        found = open_labelled(data)
        assert isinstance(found, Questions)
        assert found.passages == ("Ann has a cat.", "It rains.")
        assert [(q.id, q.passage, q.answers) for q in found.asked] == [("1", 0, (("Ann", 0),)), ("b", 1, ()), ("c", 1, ())]
        assert found.groups().tolist() == [0, 1, 1]
    assert [q.text for q in found.subset([2, 0]).asked] == ["What?", "Who?"]


MISTAKES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "ragged": ("a.tsv", "a\t1\nb\n", {}, "row 2 has 1 columns, the first one has 2"),
    "too wide": ("a.tsv", "a\tb\tc\td\n", {}, "4 columns and no header"),
    "no text": ("a.jsonl", '{"id": 1, "body": "x"}', {}, "no column of text among id, body; name it with --column"),
    "unknown column": ("a.jsonl", '{"text": "x"}', {"column": "body"}, 'no column "body"; there are text'),
    "unknown label": ("a.jsonl", '{"text": "x"}', {"label": "y"}, 'no column "y"; there are text'),
    "unknown columns of a table": ("a.tsv", "text\tlabel\na\t1\n", {"column": "body"}, "no columns body in its first row: text | label"),
    "second alone": ("a.jsonl", '{"text": "x"}', {"second": "text"}, "name the first one with --column"),
    "another task": ("a.tsv", "a\t1\n", {"task": "tokens"}, "holds texts, but --task tokens needs tagged words"),
    "no pairs": ("a.jsonl", '{"text": "x"}', {"task": "pairs"}, "needs pairs of texts; name the columns with --column and --second"),
    "unknown task": ("a.tsv", "a\t1\n", {"task": "guess"}, "classify, pairs, tokens, answers, got 'guess'"),
    "no conllu": ("a.conllu", "1\tgo\n", {}, "line 1 has 2 columns"),
    "no field": ("a.conllu", CONLLU, {"label": "mood"}, "fields form, lemma, upos, xpos, deprel, got --label mood"),
    "no squad": ("a.json", '{"data": [{"text": "x"}]}', {}, "not in SQuAD's format"),
    "no json": ("a.json", '{"text": 1}\n{"text": 2}', {}, "is called .jsonl"),
    "empty": ("a.tsv", "\n\n", {}, "no rows in it"),
    "another kind": ("a.pdf", "%PDF", {}, "expected .tsv, .csv, .jsonl, .parquet"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(tmp_path: Path, mistake: str) -> None:
    name, text, said, words = MISTAKES[mistake]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011  the words are below
        inspect.unwrap(open_labelled)(tmp_path / name, **said)
    assert words in str(error.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        open_labelled(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match="got int"):
        open_labelled(7)
    with pytest.raises(ValueError, match=r"holds \(text, label\)"):
        open_labelled([("a", "b"), ("c",)])
    with pytest.raises(BadDataError, match="no labelled text in it"):
        open_labelled([])
    (tmp_path / "train.tsv").write_text("a\t1\n")
    with pytest.raises(BadDataError, match="a folder of texts for each class, or name one file"):
        open_labelled(tmp_path)
