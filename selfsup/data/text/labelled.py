"""Labelled text as it is published: texts and pairs of texts with classes or scores, tagged words, questions on passages."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from selfsup.data.errors import BadDataError
from selfsup.data.text.documents import PLAIN, text_suffix
from selfsup.data.text.rows import TABLES, read_lines, read_rows
from selfsup.data.text.texts import labelled_texts

Task = Literal["classify", "pairs", "tokens", "answers"]
COLUMNS = ("text", "sentence")
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
LABELS = ("label", "gold_label", "score", "class")
FIELDS = {"form": 1, "lemma": 2, "upos": 3, "xpos": 4, "deprel": 7}
"""Columns of CoNLL-U, https://universaldependencies.org/format.html."""


@dataclass(frozen=True, eq=False)
class Texts:
    """N texts, or N pairs of texts.

    Attributes:
        source: absolute path, or "list".
        first, second: the texts; `second` is None where there are no pairs.
        labels: names of classes, or scores; None for unknown.
    """

    source: str
    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.first)

    def subset(self, index: Iterable[int]) -> "Texts":
        """Those of these numbers."""
        some = list(index)
        second = None if self.second is None else tuple(self.second[i] for i in some)
        return replace(self, first=tuple(self.first[i] for i in some), second=second, labels=tuple(self.labels[i] for i in some))

    def groups(self) -> np.ndarray:
        """(N,) equal numbers for what must not be torn apart: nothing."""
        return np.arange(len(self))


@dataclass(frozen=True, eq=False)
class Tagged:
    """N sentences of words.

    Attributes:
        source: absolute path, or "list".
        words: of each sentence.
        tags: of each word, None for unknown.
    """

    source: str
    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str | None, ...], ...]

    def __len__(self) -> int:
        return len(self.words)

    def subset(self, index: Iterable[int]) -> "Tagged":
        """Those sentences."""
        some = list(index)
        return replace(self, words=tuple(self.words[i] for i in some), tags=tuple(self.tags[i] for i in some))

    def groups(self) -> np.ndarray:
        """(N,) equal numbers for what must not be torn apart: nothing."""
        return np.arange(len(self))


class Question(NamedTuple):
    """A question on a passage.

    Attributes:
        id: as the file has it.
        passage: number of the passage.
        text: the question.
        answers: (text, first character in the passage) of each answer that counts as right; none where the passage has no answer.
    """

    id: str
    passage: int
    text: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Questions:
    """N questions.

    Attributes:
        source: absolute path, or "list".
        passages: texts in which the answers stand.
        asked: the questions.
    """

    source: str
    passages: tuple[str, ...]
    asked: tuple[Question, ...]

    def __len__(self) -> int:
        return len(self.asked)

    def subset(self, index: Iterable[int]) -> "Questions":
        """Those questions, and all passages."""
        return replace(self, asked=tuple(self.asked[i] for i in index))

    def groups(self) -> np.ndarray:
        """(N,) equal numbers for what must not be torn apart: questions on one passage."""
        return np.array([q.passage for q in self.asked], np.int64)


Labelled = Texts | Tagged | Questions


def open_labelled(
    data: Any, task: Task | None = None, *, column: str | None = None, second: str | None = None, label: str | None = None
) -> Labelled:
    """Labelled text, and what kind it is.

    Args:
        data: a path to .tsv, .csv, .jsonl or .parquet (texts, or pairs), .txt (a text a line), a folder with a folder for each class,
            .conllu (tagged words) or .json in SQuAD's format (questions), most of them also as .gz; or a list of (text, label), of
            (text, text, label), of (words, tags), or such a JSON document; or what this function gave.
        task: what the data is for, where that cannot be seen from it: "pairs" makes of two columns without a header two texts.
        column, second, label: names of columns; of .conllu, `label` is one of `FIELDS`, "upos" when not given. When not given, of tables
            "text" or "sentence", pairs as in `PAIRS`, and a label as in `LABELS`. Without a header: text, label; or text, text, label; or
            score, text, text.

    Raises:
        ValueError: nothing is there, it is of another kind, or does not fit the task.
        BadDataError: it is damaged, or empty.
    """
    if task is not None and task not in get_args(Task):
        raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {task!r}")
    found = data if isinstance(data, Texts | Tagged | Questions) else _open(data, task, column, second, label)
    if not len(found):
        way = "; expected a folder with a folder of texts for each class, or name one file" if Path(found.source).is_dir() else ""
        raise BadDataError(f"{found.source}: no labelled text in it{way}")
    if task is not None and task != task_of(found):
        kinds = {"classify": "texts", "pairs": "pairs of texts", "tokens": "tagged words", "answers": "questions on passages"}
        way = "; name the columns with --column and --second" if task in ("pairs", "classify") and isinstance(found, Texts) else ""
        raise ValueError(f"{found.source} holds {kinds[task_of(found)]}, but --task {task} needs {kinds[task]}{way}")
    return found


def task_of(data: Labelled) -> Task:
    """What such data is for."""
    if isinstance(data, Texts):
        return "classify" if data.second is None else "pairs"
    return "tokens" if isinstance(data, Tagged) else "answers"


def _open(data: Any, task: Task | None, column: str | None, second: str | None, label: str | None) -> Labelled:
    if isinstance(data, Mapping):
        return read_squad(data, "list")
    if isinstance(data, list | tuple):
        return _listed(data)
    if not isinstance(data, str | Path):
        raise ValueError(f"expected labelled text: a path, a list of (text, label), or a SQuAD document; got {type(data).__name__}")
    path = Path(data).expanduser()
    if not path.exists():
        raise ValueError(f"there is no {path}")
    source, kind = str(path.resolve()), text_suffix(path)
    if kind == ".conllu":
        return read_conllu(path, label or "upos")
    if kind == ".json":
        try:
            return read_squad(json.loads("\n".join(read_lines(path))), source)
        except json.JSONDecodeError as error:
            raise BadDataError(f"{path}: no JSON ({error}); a file with an object in every line is called .jsonl") from None
    if path.is_dir() or kind in PLAIN:
        pairs = list(labelled_texts(path, column or "text", label or "label"))
        return Texts(source, tuple(text for text, _ in pairs), None, tuple(name for _, name in pairs))
    if kind not in TABLES:
        raise ValueError(f"{path}: expected {', '.join(TABLES)}, .txt, .conllu, .json of SQuAD, or a folder with a folder for each class")
    return _table(read_rows(path), source, task, column, second, label)


def _listed(rows: Sequence[Any]) -> Labelled:
    if all(isinstance(row, str) for row in rows):
        return Texts("list", tuple(rows), None, (None,) * len(rows))
    wide = {len(row) if isinstance(row, list | tuple) else 0 for row in rows}
    if wide == {2} and all(isinstance(row[0], list | tuple) for row in rows):
        return Tagged("list", tuple(tuple(words) for words, _ in rows), tuple(tuple(tags) for _, tags in rows))
    if wide not in ({2}, {3}):
        raise ValueError("a list of labelled text holds (text, label), (text, text, label) or (words, tags) in each row")
    second = tuple(str(row[1]) for row in rows) if wide == {3} else None
    return Texts("list", tuple(str(row[0]) for row in rows), second, tuple(_name(row[-1]) for row in rows))


def _name(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _table(
    rows: list[list[str]] | list[dict[str, Any]], source: str, task: Task | None, column: str | None, second: str | None, label: str | None
) -> Texts:
    if not rows:
        raise BadDataError(f"{source}: no rows in it")
    named = [name for name in (column, second, label) if name is not None]
    known = {*COLUMNS, *(name for pair in PAIRS for name in pair)}
    first = rows[0]
    if isinstance(first, list):
        if not (set(first) & known if not named else set(first) >= set(named)):
            if named:
                raise ValueError(f"{source}: no columns {', '.join(named)} in its first row: {' | '.join(first)[:200]}")
            return _without_header(rows, source, task)
        rows = [dict(zip(first, row, strict=False)) for row in rows[1:]]
    there = list(first)
    a, b = _texts_among(there, source, task, column, second)
    c = label or next((name for name in LABELS if name in there), None)
    for name in (a, b, label):
        if name is not None and name not in there:
            raise ValueError(f'{source}: no column "{name}"; there are {", ".join(there)}')
    text = [str(row.get(a) or "") for row in rows]  # type: ignore[union-attr]
    pair = None if b is None else tuple(str(row.get(b) or "") for row in rows)  # type: ignore[union-attr]
    return Texts(source, tuple(text), pair, tuple(_name(row.get(c)) for row in rows))  # type: ignore[union-attr]


def _texts_among(there: list[str], source: str, task: Task | None, column: str | None, second: str | None) -> tuple[str, str | None]:
    """Names of the columns with the texts; the second is None where there is one."""
    if column is not None or second is not None:
        if column is None:
            raise ValueError("--second names the other text of a pair; name the first one with --column")
        return column, second
    found = next((pair for pair in PAIRS if set(pair) <= set(there)), None) if task != "classify" else None
    one = next((name for name in COLUMNS if name in there), None)
    if found is not None:
        return found
    if one is None:
        raise ValueError(f"{source}: no column of text among {', '.join(there)}; name it with --column, and of pairs --second")
    return one, None


def _without_header(rows: Sequence[Any], source: str, task: Task | None) -> Texts:
    wide = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != wide:
            raise BadDataError(f"{source}: row {number} has {len(row)} columns, the first one has {wide}")
    columns = list(zip(*rows, strict=True))
    if wide > 3:
        raise ValueError(f"{source}: {wide} columns and no header that names them; put one in with text and label, say")
    if wide == 3:
        scored = all(_is_number(x) for x in columns[0] if x) and not all(_is_number(x) for x in columns[2] if x)
        first, second, labels = (columns[1], columns[2], columns[0]) if scored else columns
        return Texts(source, first, second, tuple(map(_name, labels)))
    nothing: tuple[str | None, ...] = (None,) * len(rows)
    if wide == 2 and task == "pairs":
        return Texts(source, columns[0], columns[1], nothing)
    return Texts(source, columns[0], None, tuple(map(_name, columns[1])) if wide == 2 else nothing)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_conllu(path: Path, field: str = "upos") -> Tagged:
    """Words and one field of every sentence; parts of contractions count, the contraction and words that were left unsaid do not.

    Raises:
        ValueError: no such field.
        BadDataError: a line that is no word of CoNLL-U; names it.
    """
    if field not in FIELDS:
        raise ValueError(f"CoNLL-U has the fields {', '.join(FIELDS)}, got --label {field}")
    sentences, tags = [], []
    words: list[str] = []
    marks: list[str | None] = []
    for number, line in enumerate([*read_lines(path), ""], 1):
        if not line.strip():
            if words:
                sentences.append(tuple(words))
                tags.append(tuple(marks))
            words, marks = [], []
        elif not line.startswith("#"):
            cells = line.split("\t")
            if len(cells) != 10:
                raise BadDataError(f"{path}: line {number} has {len(cells)} columns; a word of CoNLL-U has 10, with tabs between them")
            if cells[0].isdigit():
                words.append(cells[1])
                marks.append(None if cells[FIELDS[field]] == "_" else cells[FIELDS[field]])
    return Tagged(str(path.resolve()), tuple(sentences), tuple(tags))


def read_squad(document: Any, source: str) -> Questions:
    """Questions of SQuAD 1.1 or 2.0 (1606.05250, 1806.03822), and of what has taken over its format.

    Raises:
        BadDataError: another document.
    """
    passages: list[str] = []
    asked: list[Question] = []
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for q in paragraph["qas"]:
                    answers = () if q.get("is_impossible") else q.get("answers", ())
                    right = tuple((a["text"], int(a["answer_start"])) for a in answers)
                    asked.append(Question(str(q["id"]), len(passages), q["question"], right))
                passages.append(paragraph["context"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{source}: not in SQuAD's format (data, paragraphs, context, qas, answers): {error!r}") from None
    return Questions(source, tuple(passages), tuple(asked))
