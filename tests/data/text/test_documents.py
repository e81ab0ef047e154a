"""Text of every kind of file, whole and damaged: what is read, what is counted, and how much memory it takes."""

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from selfsup.data.errors import BadDataError
from selfsup.data.text.documents import PIECE, Corpus, open_corpus
from selfsup.data.text.texts import open_sentences, open_text
from selfsup.data.text.tokenizer import Tokenizer, train_tokenizer

POEM = "The cat sat.\n\nA dog ran.\nIt ran far.\n"
CONLLU = """# newdoc
1	The	_
2	cat	_
3	sat.	_

# newdoc
# text = A dog ran.
1	A	_

# text = It ran far.
1	It	_
"""
DOCUMENTS = ["The cat sat.", "A dog ran.\nIt ran far."]


def documents(corpus: Corpus) -> list[str]:
    """Pieces joined to documents."""
    found, parts = [], []
    for piece in corpus:
        parts.append(piece.text)
        if piece.last:
            found.append("".join(parts).strip())
            parts = []
    assert not parts
    return found


def written(folder: Path, name: str, content: bytes | str) -> Path:
    """Text is encoded, and packed if the name says so; bytes are written as they are.

    Packing belongs here: a gzip header holds the time, and would give a test another name in each worker.
    """
    path = folder / name
    if isinstance(content, str):
        content = gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode()
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer([POEM] * 2, "wordpiece", vocabulary_size=60)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", POEM),
        ("a.md", POEM),
        ("mark.txt", "\ufeff" + POEM),
        ("windows.txt", POEM.replace("\n", "\r\n")),
        ("old-mac.txt", POEM.replace("\n", "\r")),
        ("blank-with-spaces.txt", POEM.replace("\n\n", "\n \t \n\n\n")),
        ("nuls.txt", POEM.replace("cat", "c\0at")),
        ("sixteen.txt", POEM.encode("utf-16")),
        ("a.txt.gz", POEM),
        ("a.jsonl", "".join(json.dumps({"text": d, "n": 1}) + "\n" for d in DOCUMENTS)),
        ("a.jsonl.gz", "".join(json.dumps({"text": d}) + "\n\n" for d in DOCUMENTS)),
        (
            "a.conllu",
            "# newdoc\n1\tThe\t_\n2\tcat\t_\n3\tsat.\t_\n\n# newdoc\n# text = A dog ran.\n1\tA\t_\n\n# text = It ran far.\n1\tIt\t_\n",
        ),
    ],
)
def test_every_kind_of_file_holds_the_same_documents(tmp_path: Path, name: str, content: bytes | str) -> None:
    assert documents(open_corpus(written(tmp_path, name, content))) == DOCUMENTS


def test_parquet_and_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"id": [1, 2, 3], "body": [DOCUMENTS[0], None, DOCUMENTS[1]]}), path)
    corpus = open_corpus(path, column="body")
    assert documents(corpus) == DOCUMENTS
    assert corpus.counts.rows == 1
    with pytest.raises(ValueError, match=r'no column "text"; there are id, body: choose with --column'):
        documents(open_corpus(path))


def test_bad_bytes_become_one_mark_each_and_are_counted(tmp_path: Path) -> None:
    corpus = open_corpus(written(tmp_path, "a.txt", b"caf\xe9 au lait\xff.\n\nna\xc3\xafve \xe2\x82 end"))
    assert documents(corpus) == ["caf\ufffd au lait\ufffd.", "naïve \ufffd end"]
    assert (corpus.counts.replaced, corpus.counts.documents, corpus.counts.nuls) == (3, 2, 0)


@pytest.mark.parametrize("shift", range(4))
def test_a_character_a_line_end_and_a_blank_line_may_lie_across_two_blocks(tmp_path: Path, shift: int) -> None:
    for middle, expected in (("é" * 6, 1), ("\r\n" * 3, 2), ("\r\n", 1), ("\n \n\n", 2)):
        start = "a" * (PIECE - 1 - shift)
        corpus = open_corpus(written(tmp_path, "a.txt", start + middle + "end"))
        found = documents(corpus)
        assert (len(found), corpus.counts.replaced) == (expected, 0)
        assert "".join(found) == start + (middle.replace("\r", "") if expected == 1 else "") + "end"


def test_a_document_that_goes_on_with_spaces_only_still_ends(tmp_path: Path) -> None:
    assert documents(open_corpus(written(tmp_path, "a.txt", "a" * PIECE + " " * PIECE + "\n\nend"))) == ["a" * PIECE, "end"]


def test_a_line_longer_than_memory_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        for _ in range(32):
            file.write(b"word " * (PIECE // 5) + b"x" * 5)
    tracemalloc.start()
    total = last = 0
    for piece in open_corpus(path):
        assert len(piece.text) <= PIECE
        total, last = total + len(piece.text), last + piece.last
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (total, last) == (path.stat().st_size, 1)
    assert peak < 12 * PIECE


def test_json_rows_without_text_are_counted_and_a_wrong_column_is_named(tmp_path: Path) -> None:
    rows = ['{"text": "one"}', '{"text": 3}', "[1]", "{broken", '{"text": "  "}', '{"other": "x"}']
    corpus = open_corpus(written(tmp_path, "a.jsonl", "\n".join(rows)))
    assert documents(corpus) == ["one"]
    assert corpus.counts.rows == 5
    with pytest.raises(ValueError, match=r'no row has text in a column "body"; there are other, text: choose with --column'):
        documents(open_corpus(tmp_path / "a.jsonl", column="body"))


def test_damaged_files_are_skipped_with_a_reason_and_the_others_are_read(tmp_path: Path) -> None:
    whole = gzip.compress(np.random.default_rng(0).bytes(4000).hex().encode())
    written(tmp_path, "a-cut.txt.gz", whole[: len(whole) // 2])
    written(tmp_path, "b-liar.txt.gz", b"not gzip")
    written(tmp_path, "c-empty.txt", b"")
    written(tmp_path, "d-empty.txt.gz", "")
    written(tmp_path, "e.parquet", b"PAR1 no PAR1")
    written(tmp_path, "f.txt", POEM)
    written(tmp_path, "g.bin", b"\0\1")
    written(tmp_path, ".hidden.txt", b"secret")
    corpus = open_corpus(tmp_path)
    pieces = "\n\n".join(piece.text for piece in corpus)
    assert "It ran far." in pieces
    assert "secret" not in pieces
    told = {Path(s.name).name: s.reason for s in corpus.skipped}
    assert set(told) == {"a-cut.txt.gz", "b-liar.txt.gz", "e.parquet", "g.bin"}
    assert told["g.bin"] == "not text: .bin"
    assert all("damaged" in told[name] for name in told if name != "g.bin")
    list(corpus)
    assert len(corpus.skipped) == 4  # a second pass tells nothing twice


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\0\0", b"\xef\xbb\xbf"])
def test_nothing_to_read_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadDataError, match=r"no text in .*a\.txt"):
        open_text(written(tmp_path, "a.txt", content), tokenizer="wordpiece", layout="packed", length=8)


def test_what_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadDataError, match=r"no text in .*expected files of \.txt"):
        open_corpus(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"photo\.jpg: expected \.txt"):
        open_corpus(written(tmp_path, "photo.jpg", b"x"))
    with pytest.raises(ValueError, match="got int"):
        open_corpus(3)


def test_too_many_bad_bytes_stop_the_run(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", POEM.encode() * 20 + b"\xff" * 40)
    with pytest.raises(BadDataError, match=r"40 places of .* no UTF-8 \(allowed 1\.0%\).*--max-bad"):
        open_text(path, tokenizer="wordpiece", layout="packed", length=8, vocabulary_size=60)
    items = open_text(path, tokenizer="wordpiece", layout="packed", length=8, vocabulary_size=60, max_bad=0.5)
    assert [s.reason for s in items.skipped] == ["40 unreadable places became U+FFFD"]
    again = open_text(path, tokenizer="wordpiece", layout="packed", length=8, vocabulary_size=60, max_bad=0.5)
    assert [s.reason for s in again.skipped] == ["40 unreadable places became U+FFFD"]  # from the cache as well


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'The "cat" sat.\t1\nA dog ran.\t0\n'),
        ("a.tsv", 'label\ttext\n1\tThe "cat" sat.\n0\tA dog ran.\n'),
        ("a.csv", '"The ""cat"" sat.",1\r\nA dog ran.,0\r\n'),
        ("a.jsonl", '{"text": "The \\"cat\\" sat.", "label": 1}\n\n{"text": "A dog ran.", "label": "0"}\n'),
        ("a.tsv.gz", '\ufeffThe "cat" sat.\t1\nA dog ran.\t0'),
    ],
)
def test_sentences_with_labels(tmp_path: Path, words: Tokenizer, name: str, content: bytes | str) -> None:
    items = open_sentences(written(tmp_path, name, content), tokenizer=words, length=16)
    assert list(items.names) == ['The "cat" sat.', "A dog ran."]
    assert items.classes == ("0", "1")
    assert items.labels is not None
    assert items.labels.tolist() == [1, 0]
    assert not items.skipped


def test_sentences_in_parquet_and_in_a_folder_of_classes(tmp_path: Path, words: Tokenizer) -> None:
    parquet.write_table(pa.table({"id": [0, 1], "text": DOCUMENTS, "label": [2, None]}), tmp_path / "a.parquet")
    items = open_sentences(tmp_path / "a.parquet", tokenizer=words, length=16)
    assert items.classes == ("2",)
    assert items.labels is not None
    assert items.labels.tolist() == [0, -1]
    for i, label in enumerate(("pos", "neg")):
        (tmp_path / "reviews" / label).mkdir(parents=True)
        written(tmp_path / "reviews" / label, "1.txt", DOCUMENTS[i])
    written(tmp_path / "reviews", "notes.pdf", b"%PDF")
    items = open_sentences(tmp_path / "reviews", tokenizer=words, length=16)
    assert items.labels is not None
    assert [items.classes[c] for c in items.labels] == ["neg", "pos"]
    assert [(s.name, s.reason) for s in items.skipped] == [("notes.pdf", "not text: .pdf")]


def test_faults_of_sentences_are_counted_or_told(tmp_path: Path, words: Tokenizer) -> None:
    def opened(name: str, content: bytes | str) -> list[str]:
        items = open_sentences(written(tmp_path, name, content), tokenizer=words, length=8)
        return [s.reason for s in items.skipped]

    assert opened("a.txt", b"The c\0at\xff sat.\n\n   \nA dog ran far far far far far.\n") == [
        "1 unreadable places became U+FFFD",
        "1 NUL characters were dropped",
        "1 texts were cut to 6 tokens",
        "2 empty texts were left out",
    ]
    with pytest.raises(BadDataError, match=r"a\.jsonl: line 2 is no JSON"):
        opened("a.jsonl", '{"text": "x"}\n{"text": \n')
    with pytest.raises(ValueError, match=r'without a column "text"; there are body: choose with --column'):
        opened("b.jsonl", '{"body": "x"}\n')
    with pytest.raises(ValueError, match="1 rows have more than text and label"):
        opened("a.tsv", "a\tb\tc\nd\te\n")
    with pytest.raises(BadDataError, match=r"a\.csv: .*is a quote not closed"):
        opened("a.csv", '"never closed,1\n' + "x" * 200_000)
    with pytest.raises(BadDataError, match=r"a\.tsv\.gz: damaged: .*gzip"):
        opened("a.tsv.gz", b"not gzip")
    with pytest.raises(ValueError, match=r"a\.wav: expected \.txt, \.tsv"):
        opened("a.wav", "RIFF")


def test_a_corpus_is_read_and_cut_into_tokens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.txt", POEM * 30)
    first = open_text(path, tokenizer="wordpiece", layout="packed", length=16, vocabulary_size=60)
    monkeypatch.setattr("selfsup.data.text.documents._read", None)
    again = open_text(path, tokenizer="wordpiece", layout="packed", length=16, vocabulary_size=60)
    rows = np.arange(len(first))
    np.testing.assert_array_equal(first.batch(rows)["text"].numpy(), again.batch(rows)["text"].numpy())
    assert first.fingerprint == again.fingerprint
