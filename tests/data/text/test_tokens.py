"""Tokenizers that are learned, and items laid out from token numbers: nothing is lost, shown twice or mixed up."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from selfsup.data.errors import BadDataError
from selfsup.data.text.documents import open_corpus
from selfsup.data.text.texts import open_text
from selfsup.data.text.tokenizer import SPECIAL, Kind, Tokenizer, load_tokenizer, train_tokenizer
from selfsup.data.text.tokens import Layout, TextStore, Tokens, cut_sentences, lay_out, tokenise

RNG = np.random.default_rng(0)
VOCABULARY = ["sun", "moon", "rise", "risen", "fall", "fallen", "sky", "light", "lighter"]
CORPUS = [
    ". ".join(" ".join(RNG.choice(VOCABULARY, RNG.integers(1, 12))).capitalize() for _ in range(RNG.integers(1, 9))) + "."
    for _ in range(40)
]


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return train_tokenizer(CORPUS, "wordpiece", vocabulary_size=80)


@pytest.fixture
def found(pieces: Tokenizer, tmp_path: Path) -> Tokens:
    return tokenise(open_corpus(CORPUS), pieces, by_lines=False, cache_dir=tmp_path)


def items(found: Tokens, tokenizer: Tokenizer, layout: Layout, length: int) -> tuple[TextStore, np.ndarray]:
    store, _ = lay_out(found, tokenizer, layout, length)
    return store, store.gather(np.arange(len(store.first) - 1))


def runs(row: np.ndarray, t: Tokenizer) -> list[list[int]]:
    """What stands between START and END, several in a row; the rest is padding."""
    kept = row[row != t.pad].tolist()
    assert row[len(kept) :].tolist() == [t.pad] * (len(row) - len(kept))
    out, at = [], 0
    while at < len(kept):
        assert kept[at] == t.start
        end = kept.index(t.end, at)
        out.append(kept[at + 1 : end])
        at = end + 1
    return out


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "character", "word"])
def test_a_learned_tokenizer_gives_the_text_back(kind: str, tmp_path: Path) -> None:
    t = train_tokenizer(CORPUS, kind, vocabulary_size=400, min_count=1)
    text = CORPUS[3]
    (ids,) = t.encode([text])
    assert ids.dtype == np.int64
    assert ids.max() < t.size <= 400
    assert t.special.sum() == len(SPECIAL)
    assert not t.special[ids].any()
    said = t.decode(ids)
    assert said == (text.lower().replace(" .", ".") if kind == "wordpiece" else text)
    assert [t.number(name) for name in SPECIAL] == [t.pad, t.unknown, t.start, t.end, t.mask] == [0, 1, 2, 3, 4]
    t.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == t.fingerprint
    np.testing.assert_array_equal(again.encode([text])[0], ids)


def test_learning_the_same_text_twice_gives_the_same_tokenizer() -> None:
    for kind in ("wordpiece", "bpe", "character", "word"):
        one, two = (train_tokenizer(CORPUS, kind, vocabulary_size=320) for _ in range(2))  # type: ignore[arg-type]
        assert one.document == two.document, kind
    texts = ["unaffable naïveté 猫の名前 don't (re)joined", "éé 한국어 हिन्दी"]
    one, two = (train_tokenizer(texts, "wordpiece", vocabulary_size=150, lowercase=False, min_count=1) for _ in range(2))
    assert one.document == two.document
    assert one.unknown not in one.encode(texts)[1]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "character", "word"])
@pytest.mark.parametrize("lowercase", [None, False, True])
def test_case_is_folded_where_it_is_asked_for(kind: Kind, lowercase: bool | None) -> None:
    t = train_tokenizer(["Été ÉTÉ été Été ÉTÉ été"], kind, vocabulary_size=300, lowercase=lowercase)
    upper, lower = t.encode(["ÉTÉ", "été"])
    folds = kind == "wordpiece" if lowercase is None else lowercase
    assert (upper.tolist() == lower.tolist()) == folds
    assert t.decode(lower) == ("ete" if kind == "wordpiece" and folds else "été")
    assert t.unknown not in [*upper, *lower]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "character", "word"])
def test_names_of_special_tokens_in_a_text_are_text(kind: Kind, tmp_path: Path) -> None:
    t = train_tokenizer([*CORPUS, "[] S E P M A K [ SEP ] MASK"], kind, vocabulary_size=400, min_count=1)
    t.save(tmp_path / "tokenizer.json")
    for tokenizer in (t, load_tokenizer(tmp_path)):
        text = "sun [SEP] moon [MASK][PAD]"
        offset_ids, offsets = tokenizer.encode_with_offsets(text)
        for ids in (tokenizer.encode([text])[0], offset_ids):
            assert not {t.pad, t.start, t.end, t.mask} & set(ids.tolist()), tokenizer.tokens(ids)
        assert offsets[-1, 1] == len(text)
        if kind == "bpe":
            assert tokenizer.decode(offset_ids) == text


def test_tokens_that_go_on_with_a_word_are_known(pieces: Tokenizer) -> None:
    ids = pieces.encode(["risen lighter zzz"])[0]
    tokens = pieces.tokens(ids)
    assert [bool(pieces.continues[i]) for i in ids] == [token.startswith("##") for token in tokens]
    bpe = train_tokenizer(["ab ab ab abc"] * 9, "bpe", vocabulary_size=300)
    ids = bpe.encode([" abq ab"])[0]
    begins = [token.startswith("Ġ") for token in bpe.tokens(ids)]
    assert [not bpe.continues[i] for i in ids] == begins
    assert sum(begins) == 2


def test_chinese_is_cut_into_letters_and_bytes_cover_everything() -> None:
    letters = train_tokenizer(["自监督学习", "监督学习"], "character", vocabulary_size=50)
    assert letters.tokens(letters.encode(["学习自"])[0]) == ["学", "习", "自"]
    assert letters.encode(["猫"])[0].tolist() == [letters.unknown]
    words = train_tokenizer(["自监督学习 is", "监督学习 is"], "wordpiece", vocabulary_size=50)
    assert words.tokens(words.encode(["学习is"])[0]) == ["学", "习", "is"]
    bpe = train_tokenizer(CORPUS, "bpe", vocabulary_size=300)
    strange = "猫 \U0001f600 \x01 naïve"
    assert bpe.decode(bpe.encode([strange])[0]) == strange


def test_offsets_point_into_the_text_and_every_word_has_a_token(pieces: Tokenizer) -> None:
    text = "Sun rise. Fallen sky."
    ids, where = pieces.encode_with_offsets(text)
    assert len(ids) == len(where)
    rebuilt = [text[a:b].lower() for a, b in where]
    assert rebuilt == [token.removeprefix("##") for token in pieces.tokens(ids)]
    assert [len(x) >= 1 for x in pieces.encode_words(["sun", "", "\u200b", "猫"])] == [True] * 4


def test_faults_of_tokenizers_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no tokenizer .*nowhere; expected a tokenizer\.json, or one of wordpiece"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="expected the JSON of a tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="vocabulary_size of bpe must be at least 300, got 5"):
        train_tokenizer(CORPUS, "bpe", vocabulary_size=5)
    with pytest.raises(BadDataError, match="no words"):
        train_tokenizer(["  "], "word", vocabulary_size=500)
    bare = json.loads(train_tokenizer(CORPUS, "word", vocabulary_size=90).document)
    bare["added_tokens"] = []
    for token in SPECIAL:
        bare["model"]["vocab"].pop(token)
    with pytest.raises(ValueError, match=r"no token for padding or for the end"):
        Tokenizer(json.dumps(bare).replace("[UNK]", "sun"))


@pytest.mark.parametrize(
    "text", ['One. Two! "Three?" four. Mr. x\n\nFive', "第一句。第二句！”第三", "no end", ".", "a\n\n\nb", "e.g. this 3.5 m... Yes"]
)
def test_sentences_joined_are_the_text(text: str) -> None:
    for by_lines in (True, False):
        parts = cut_sentences(text, by_lines=by_lines)
        assert "".join(parts) == text
        assert all(parts)
    assert cut_sentences('He said "go." Then left. ok', by_lines=False) == ['He said "go."', " Then left. ok"]
    assert cut_sentences("第一句。第二句！", by_lines=False) == ["第一句。", "第二句！"]
    assert cut_sentences("One. Two\nthree", by_lines=True) == ["One. Two", "\nthree"]


def test_the_corpus_as_numbers_is_the_corpus(found: Tokens, pieces: Tokenizer) -> None:
    assert len(found.documents) == len(CORPUS)
    for text, (begin, end) in zip(CORPUS, found.documents, strict=True):
        np.testing.assert_array_equal(found.tokens.array[begin:end], np.concatenate(pieces.encode(cut_sentences(text, by_lines=False))))
        assert found.tokens.array[end] == pieces.end
    assert found.tokens.array.dtype == np.uint16
    copied = pickle.loads(pickle.dumps(found.tokens))
    np.testing.assert_array_equal(copied.array, found.tokens.array)
    assert len(pickle.dumps(found.tokens)) < 1000  # the file is mapped again, not copied


@pytest.mark.parametrize("length", [8, 13, 32, 400])
def test_packed_items_hold_every_token_once_and_documents_apart(found: Tokens, pieces: Tokenizer, length: int) -> None:
    _, rows = items(found, pieces, "packed", length)
    assert rows.shape[1] == length
    shown = [run for row in rows for run in runs(row, pieces)]
    tokens = found.tokens.array
    flat = np.concatenate([tokens[a:b] for a, b in found.documents]).tolist()
    assert [token for run in shown for token in run] == flat
    of = np.concatenate([np.full(b - a, i) for i, (a, b) in enumerate(found.documents)])
    at = 0
    for run in shown:
        assert len(set(of[at : at + len(run)])) == 1
        at += len(run)
    if length == 400:
        assert (rows[:-1] != pieces.pad).mean() > 0.95


def test_a_stream_overlaps_by_one_token(found: Tokens, pieces: Tokenizer) -> None:
    store, rows = items(found, pieces, "stream", 16)
    np.testing.assert_array_equal(rows[1:, 0], rows[:-1, -1])
    np.testing.assert_array_equal(np.concatenate([rows[0], rows[1:, 1:].ravel()]), found.tokens.array[: 1 + 15 * len(rows)])
    assert len(found.tokens.array) - (1 + 15 * len(rows)) < 15
    assert store.gather(np.array([3, 3])).shape == (2, 16)


def test_sentences_are_cut_at_the_length_and_counted(found: Tokens, pieces: Tokenizer) -> None:
    store, cut = lay_out(found, pieces, "sentences", 8)
    lengths = found.sentences[:, 1] - found.sentences[:, 0]
    assert cut == (lengths > 6).sum() > 0
    rows = store.gather(np.arange(len(lengths)))
    for row, (a, b) in zip(rows, found.sentences, strict=True):
        assert runs(row, pieces) == [found.tokens.array[a : min(b, a + 6)].tolist()]
    short = int(np.argmin(lengths))
    assert store.gather(np.array([short])).shape == (1, lengths[short] + 2)  # no wider than the longest of the batch


@pytest.mark.parametrize("length", [8, 16, 64])
def test_the_second_of_a_pair_follows_the_first(found: Tokens, pieces: Tokenizer, length: int) -> None:
    store, rows = items(found, pieces, "pairs", length)
    assert len(rows) > 20
    tokens = found.tokens.array
    starts = set(found.sentences[:, 0].tolist())
    documents = found.documents
    for row, one, two in zip(rows, store.first[:-1], store.first[:-1] + 1, strict=True):
        a, n, b, m = store.starts[one], store.lengths[one], store.starts[two], store.lengths[two]
        expected = [pieces.start, *tokens[a : a + n], pieces.end, *tokens[b : b + m], pieces.end]
        assert row[row != pieces.pad].tolist() == expected
        assert len(expected) <= length
        assert {a, b} <= starts
        assert n >= 1
        assert m >= 1
        assert a + n <= b
        if length == 64:  # nothing had to be cut
            assert a + n == b
        assert ((documents[:, 0] <= a) & (b + m <= documents[:, 1])).any()


def test_layouts_that_cannot_be_are_refused(found: Tokens, pieces: Tokenizer) -> None:
    with pytest.raises(ValueError, match="--sequence-length must be at least 8 tokens, got 4"):
        lay_out(found, pieces, "packed", 4)
    with pytest.raises(BadDataError, match=r"tokens, too few for one item of 512 \(stream\)"):
        open_text(["a b c. d e f."] * 3, tokenizer=pieces, layout="stream", length=512)


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    many = train_tokenizer([" ".join(f"w{i}" for i in range(70_000))], "word", vocabulary_size=70_000, min_count=1)
    numbers = tokenise(open_corpus(["w1 w69000 w5"]), many, by_lines=True, cache_dir=tmp_path).tokens.array
    assert numbers.dtype == np.uint32
    assert many.decode(numbers[:-1]) == "w1 w69000 w5"
