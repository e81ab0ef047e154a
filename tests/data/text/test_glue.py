"""The official layouts of GLUE and CLUE, each text where its authors put it."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfsup.data.errors import BadDataError
from selfsup.data.text.glue import SUITES, Sheet, marked, open_sheet, suite_in
from selfsup.data.text.labelled import Questions, Texts

HEADS = {
    "SST-2": "sentence\tlabel",
    "MRPC": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "MNLI": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2\tlabel1\tgold_label",
    "QNLI": "index\tquestion\tsentence\tlabel",
    "RTE": "index\tsentence1\tsentence2\tlabel",
    "WNLI": "index\tsentence1\tsentence2\tlabel",
}
# Column numbers of the first text, the second one and the label, counted in the official files.
PLACES = {
    "SST-2": (0, None, 1),
    "MRPC": (3, 4, 0),
    "STS-B": (7, 8, 9),
    "QQP": (3, 4, 5),
    "MNLI": (8, 9, 11),
    "QNLI": (1, 2, 3),
    "RTE": (1, 2, 3),
    "WNLI": (1, 2, 3),
}
LABELS = {"STS-B": ("3.800", "1.500"), "MNLI": ("entailment", "neutral"), "QNLI": ("entailment", "not_entailment")}
CLUE: dict[str, tuple[str, Any, tuple[str, str | None, str]]] = {
    "AFQMC": ("afqmc_public", {"sentence1": "甲", "sentence2": "乙", "label": "0"}, ("甲", "乙", "0")),
    "TNEWS": ("tnews_public", {"label": "108", "label_desc": "news_edu", "sentence": "甲", "keywords": ""}, ("甲", None, "108")),
    "IFLYTEK": ("iflytek_public", {"label": "11", "label_des": "x", "sentence": "甲"}, ("甲", None, "11")),
    "CMNLI": ("cmnli_public", {"sentence1": "甲", "sentence2": "乙", "label": "neutral"}, ("甲", "乙", "neutral")),
    "OCNLI": ("ocnli_public", {"level": "easy", "sentence1": "甲", "sentence2": "乙", "label": "neutral"}, ("甲", "乙", "neutral")),
    "WSC": (
        "cluewsc2020_public",
        {
            "target": {"span2_index": 5, "span1_index": 1, "span1_text": "猫儿", "span2_text": "它"},
            "idx": 0,
            "label": "true",
            "text": "有猫儿在，它叫",
        },
        ("有_猫儿_在，[它]叫", None, "true"),
    ),
    "CSL": ("csl_public", {"id": 1, "abst": "甲乙", "keyword": ["甲", "丙"], "label": "0"}, ("甲 丙", "甲乙", "0")),
}


def glue_file(task: str, rows: int) -> str:
    """So many rows, alternating between two labels; every other column has the row's number in it."""
    labels = LABELS.get(task, ("0", "1"))
    if task == "CoLA":
        return "".join(f'gj04\t{labels[i % 2]}\t{"*" if i % 2 else ""}\tthe {i} "sentence\n' for i in range(rows))
    a, b, c = PLACES[task]
    lines = [HEADS[task]]
    for i in range(rows):
        cells = [f"other {i}"] * (HEADS[task].count("\t") + 1)
        cells[a], cells[c] = f'the first " {i}', labels[i % 2]
        if b is not None:
            cells[b] = f"the second {i}"
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def write_glue(folder: Path, task: str, rows: int = 6) -> None:
    inside = folder / task
    inside.mkdir(parents=True)
    for name in ("train", *(("dev_matched", "dev_mismatched") if task == "MNLI" else ("dev",))):
        (inside / f"{name}.tsv").write_text(glue_file(task, rows))


def write_clue(folder: Path, task: str, rows: int = 6) -> None:
    if task == "CMRC":
        qas = [{"question": f"第{i}？", "id": str(i), "answers": [{"text": "猫儿", "answer_start": 1}]} for i in range(rows)]
        text = json.dumps({"version": "v1.0", "data": [{"paragraphs": [{"id": "a", "context": "有猫儿在。", "qas": qas}], "title": "甲"}]})
        name = "cmrc2018_public"
    else:
        name, row, (*_, label) = CLUE[task]
        others = {"true": "false", "neutral": "contradiction"}
        made = [row if i % 2 == 0 else {**row, "label": others.get(label, "1")} for i in range(rows)]
        text = "\n".join(json.dumps(one, ensure_ascii=False) for one in [*made, {**row, "label": "-"}])
    (folder / name).mkdir(parents=True)
    for part in ("train.50k" if task == "OCNLI" else "train", "dev"):
        (folder / name / f"{part}.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("task", ["CoLA", *PLACES])
def test_every_text_of_glue_is_where_the_official_files_have_it(tmp_path: Path, task: str) -> None:
    write_glue(tmp_path, task)
    found = open_sheet(tmp_path, "glue", task)
    assert isinstance(found, Sheet)
    assert list(found.tests) == (["matched", "mismatched"] if task == "MNLI" else ["dev"])
    assert found.left_out == 0
    paired = task != "CoLA" and PLACES[task][1] is not None
    for data in (found.train, *found.tests.values()):
        assert isinstance(data, Texts)
        assert data.first == tuple(f'the {i} "sentence' if task == "CoLA" else f'the first " {i}' for i in range(6))
        assert data.second == (tuple(f"the second {i}" for i in range(6)) if paired else None)
        assert data.labels == LABELS.get(task, ("0", "1")) * 3
    assert suite_in(tmp_path) == "glue"


@pytest.mark.parametrize("task", CLUE)
def test_every_text_of_clue_is_where_the_official_files_have_it(tmp_path: Path, task: str) -> None:
    write_clue(tmp_path, task)
    found = open_sheet(tmp_path, "clue", task)
    assert isinstance(found, Sheet)
    assert isinstance(found.train, Texts)
    first, second, label = CLUE[task][2]
    assert (found.train.first[0], found.train.labels[0], len(found.train)) == (first, label, 6)
    assert found.train.second == (None if second is None else (second,) * 6)
    assert found.left_out == 2  # people did not agree, in train and dev
    assert suite_in(tmp_path) == "clue"


def test_cmrc_has_questions(tmp_path: Path) -> None:
    write_clue(tmp_path, "CMRC")
    found = open_sheet(tmp_path, "clue", "CMRC")
    assert isinstance(found, Sheet)
    assert isinstance(found.train, Questions)
    assert found.train.asked[0].answers == (("猫儿", 1),)


def test_the_pronoun_may_come_first() -> None:
    target = {"span2_index": 0, "span1_index": 2, "span1_text": "猫", "span2_text": "它"}
    assert marked({"text": "它是猫", "target": target}) == "[它]是_猫_"


def test_all_tasks_of_both_are_known() -> None:
    assert list(SUITES["glue"]) == ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI"]
    assert list(SUITES["clue"]) == [*CLUE, "CMRC"]
    measures = {name: layout.measures for name, layout in SUITES["glue"].items() if layout.measures != ("accuracy",)}
    both = ("f1", "accuracy")
    assert measures == {"CoLA": ("matthews",), "MRPC": both, "STS-B": ("pearson", "spearman"), "QQP": both}


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    assert open_sheet(tmp_path, "glue", "RTE") == "no folder RTE"
    write_glue(tmp_path, "MNLI")
    (tmp_path / "MNLI/dev_mismatched.tsv").unlink()
    assert open_sheet(tmp_path, "glue", "MNLI") == "no dev_mismatched.tsv in MNLI"
    (tmp_path / "rte").mkdir()
    for part in ("train", "dev"):
        (tmp_path / f"rte/{part}.tsv").write_text("a\tb\tc\n")
    with pytest.raises(BadDataError, match=r'no column "sentence1" in its first line: a \| b \| c'):
        open_sheet(tmp_path, "glue", "RTE")
    (tmp_path / "csl_public").mkdir()
    for part in ("train", "dev"):
        (tmp_path / f"csl_public/{part}.json").write_text('{"sentence": "x", "label": "0"}')
    with pytest.raises(BadDataError, match="a row without 'keyword'"):
        open_sheet(tmp_path, "clue", "CSL")
    with pytest.raises(ValueError, match="sub-folders such as CoLA, SST-2"):
        suite_in(tmp_path / "MNLI")


def test_rows_that_are_cut_short_are_counted(tmp_path: Path) -> None:
    write_glue(tmp_path, "QQP")
    with (tmp_path / "QQP/train.tsv").open("a") as file:
        file.write("7\t1\t2\tonly one question\n")
    found = open_sheet(tmp_path, "glue", "QQP")
    assert isinstance(found, Sheet)
    assert (len(found.train), found.left_out) == (6, 1)
