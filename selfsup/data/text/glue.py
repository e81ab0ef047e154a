"""The files of GLUE (1804.07461) and CLUE (2004.05986), as their authors give them away, as labelled text.

Scores are taken on the development sets, since the test sets have no labels. CLUE's multiple-choice tasks, C3 and ChID, are left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selfsup.data.errors import BadDataError
from selfsup.data.text.labelled import Labelled, Texts, open_labelled
from selfsup.data.text.rows import read_json_lines, read_lines

Suite = Literal["glue", "clue"]
Row = tuple[str, str | None, str | None]  # first text, second text, label


@dataclass(frozen=True)
class Layout:
    """Where a task's texts stand.

    Attributes:
        folders: names that its folder goes by; case does not count.
        train: names that the file may have.
        tests: development sets, and the names that their files may have.
        measures: of the benchmark: functions of `selfsup.evaluation.text_scores`.
        read: from a file to labelled text, and how many rows were left out.
    """

    folders: tuple[str, ...]
    train: tuple[str, ...]
    tests: Mapping[str, tuple[str, ...]]
    measures: tuple[str, ...]
    read: Callable[[Path], tuple[Labelled, int]]


def _tsv(first: str, second: str | None, label: str) -> Callable[[Path], tuple[Labelled, int]]:
    """Columns by the names in the first line, as the official files have it."""

    def read(path: Path) -> tuple[Labelled, int]:
        lines = [line.split("\t") for line in read_lines(path)]
        head = lines[0] if lines else []
        for name in (first, second, label):
            if name is not None and name not in head:
                raise BadDataError(f'{path}: no column "{name}" in its first line: {" | ".join(head)[:200]}; expected the official file')
        a, b, c = head.index(first), None if second is None else head.index(second), head.index(label)
        whole = [row for row in lines[1:] if len(row) == len(head)]
        rows: list[Row] = [(row[a], None if b is None else row[b], row[c]) for row in whole]
        return _texts(path, rows, len([row for row in lines[1:] if row != [""]]) - len(whole))

    return read


def _cola(path: Path) -> tuple[Labelled, int]:
    """No first line of names: source, label, the author's mark, sentence."""
    lines = [line.split("\t") for line in read_lines(path) if line]
    rows: list[Row] = [(row[3], None, row[1]) for row in lines if len(row) == 4]
    return _texts(path, rows, len(lines) - len(rows))


def _json(make: Callable[[Mapping[str, Any]], Row]) -> Callable[[Path], tuple[Labelled, int]]:
    """An object in every line; "-" is the label of what people did not agree on."""

    def read(path: Path) -> tuple[Labelled, int]:
        found = read_json_lines(path)
        try:
            rows = [make(row) for row in found]
        except (KeyError, TypeError, IndexError) as error:
            raise BadDataError(f"{path}: a row without {error}; expected the official file") from None
        kept = [row for row in rows if row[2] not in (None, "-")]
        return _texts(path, kept, len(rows) - len(kept))

    return read


def _texts(path: Path, rows: list[Row], left_out: int) -> tuple[Labelled, int]:
    if not rows:
        raise BadDataError(f"{path}: no rows of this task in it; expected the official file")
    first, second, labels = zip(*rows, strict=True)
    return Texts(str(path.resolve()), first, None if second[0] is None else second, labels), left_out


def _squad(path: Path) -> tuple[Labelled, int]:
    return open_labelled(path, "answers"), 0


def _label(row: Mapping[str, Any]) -> str | None:
    return None if row.get("label") is None else str(row["label"])


def marked(row: Mapping[str, Any]) -> str:
    """The text of a row of WSC with _ around the noun and [ ] around the pronoun, as the authors' baseline marks them."""
    text, target = row["text"], row["target"]
    around = [(int(target["span1_index"]), len(target["span1_text"]), "_", "_")]
    around += [(int(target["span2_index"]), len(target["span2_text"]), "[", "]")]
    for begin, long, before, after in sorted(around, reverse=True):
        text = text[:begin] + before + text[begin : begin + long] + after + text[begin + long :]
    return text


def _glue(folder: str, first: str, second: str | None, label: str, *measures: str) -> Layout:
    return Layout((folder,), ("train.tsv",), {"dev": ("dev.tsv",)}, measures, _tsv(first, second, label))


def _clue(name: str, make: Callable[[Mapping[str, Any]], Row], *train: str) -> Layout:
    return Layout((f"{name}_public", name), (*train, "train.json"), {"dev": ("dev.json",)}, ("accuracy",), _json(make))


def _pair(row: Mapping[str, Any]) -> Row:
    return row["sentence1"], row["sentence2"], _label(row)


def _one(row: Mapping[str, Any]) -> Row:
    return row["sentence"], None, _label(row)


MNLI = Layout(
    ("MNLI",),
    ("train.tsv",),
    {"matched": ("dev_matched.tsv",), "mismatched": ("dev_mismatched.tsv",)},
    ("accuracy",),
    _tsv("sentence1", "sentence2", "gold_label"),
)
SUITES: dict[Suite, dict[str, Layout]] = {
    "glue": {
        "CoLA": Layout(("CoLA",), ("train.tsv",), {"dev": ("dev.tsv",)}, ("matthews",), _cola),
        "SST-2": _glue("SST-2", "sentence", None, "label", "accuracy"),
        "MRPC": _glue("MRPC", "#1 String", "#2 String", "Quality", "f1", "accuracy"),
        "STS-B": _glue("STS-B", "sentence1", "sentence2", "score", "pearson", "spearman"),
        "QQP": _glue("QQP", "question1", "question2", "is_duplicate", "f1", "accuracy"),
        "MNLI": MNLI,
        "QNLI": _glue("QNLI", "question", "sentence", "label", "accuracy"),
        "RTE": _glue("RTE", "sentence1", "sentence2", "label", "accuracy"),
        "WNLI": _glue("WNLI", "sentence1", "sentence2", "label", "accuracy"),
    },
    "clue": {
        "AFQMC": _clue("afqmc", _pair),
        "TNEWS": _clue("tnews", _one),
        "IFLYTEK": _clue("iflytek", _one),
        "CMNLI": _clue("cmnli", _pair),
        "OCNLI": _clue("ocnli", _pair, "train.50k.json"),
        "WSC": Layout(
            ("cluewsc2020_public", "cluewsc2020", "wsc"),
            ("train.json",),
            {"dev": ("dev.json",)},
            ("accuracy",),
            _json(lambda row: (marked(row), None, _label(row))),
        ),
        "CSL": _clue("csl", lambda row: (" ".join(row["keyword"]), row["abst"], _label(row))),
        "CMRC": Layout(("cmrc2018_public", "cmrc2018", "cmrc"), ("train.json",), {"dev": ("dev.json",)}, ("exact_match",), _squad),
    },
}


@dataclass(frozen=True)
class Sheet:
    """The data of one task.

    Attributes:
        train: to learn from.
        tests: development sets by their names.
        left_out: rows without a label, or cut short.
    """

    train: Labelled
    tests: Mapping[str, Labelled]
    left_out: int


def suite_in(folder: Path) -> Suite:
    """Which of the two benchmarks a folder holds more of.

    Raises:
        ValueError: there is none of both.
    """
    there = {suite: sum(_folder(folder, layout) is not None for layout in layouts.values()) for suite, layouts in SUITES.items()}
    best: Suite = max(there, key=lambda suite: there[suite])
    if not folder.is_dir() or not there[best]:
        names = ", ".join(layout.folders[0] for layouts in SUITES.values() for layout in layouts.values())
        raise ValueError(f"{folder}: expected a folder of GLUE or CLUE with sub-folders such as {names}")
    return best


def open_sheet(folder: Path, suite: Suite, task: str) -> Sheet | str:
    """The data of a task, or what is missing, in words.

    Raises:
        BadDataError: a file is another one than the official.
    """
    layout = SUITES[suite][task]
    inside = _folder(folder, layout)
    if inside is None:
        return f"no folder {layout.folders[0]}"
    files = {name: _file(inside, names) for name, names in {"train": layout.train, **layout.tests}.items()}
    gone = [name for name, path in files.items() if path is None]
    if gone:
        wanted = {"train": layout.train, **layout.tests}
        return f"no {', no '.join(wanted[name][0] for name in gone)} in {inside.name}"
    found = {name: layout.read(path) for name, path in files.items() if path is not None}
    tests = {name: found[name][0] for name in layout.tests}
    return Sheet(found["train"][0], tests, sum(n for _, n in found.values()))


def _folder(folder: Path, layout: Layout) -> Path | None:
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}
    return next((there[name.lower()] for name in layout.folders if name.lower() in there), None)


def _file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
