"""Word vectors out of a run and back into an encoder: the same vectors, and texts embed to the same."""

from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.data.text.vector_files import WordVectors, read_word_vectors, write_word_vectors
from selfsup.tasks.exchange.word_vectors import export_word_vectors, import_word_vectors, word_vectors
from selfsup.tasks.pretraining.pretrain import pretrain


def test_vectors_leave_a_run_and_come_back(tmp_path: Path) -> None:
    lines = [" ".join(np.random.default_rng(i).permutation(["the", "the", "cat", "sat", "[MASK]", "rare"[: i % 5]])) for i in range(60)]
    settings = {"steps": 3, "batch_size": 4, "sequence_length": 16, "encoder": "words_6", "min_count": 20, "threads": 1}
    run = pretrain(["\n".join(lines)], "word2vec", out=tmp_path / "run", quiet=True, **settings)  # type: ignore[arg-type]
    assert run.config["training"]["optimizer"] == "own"
    found = word_vectors(selfsup.load(run.path))
    assert found.words[0] == "the"  # the most frequent first
    assert set(found.words) == {"the", "cat", "sat"}  # no special tokens, none that is too rare
    for binary in (False, True):
        written = export_word_vectors(run.path, tmp_path / "v", binary=binary)
        assert (written.words, written.left_out) == (3, 0)
        read = read_word_vectors(tmp_path / "v")
        assert read.words == found.words
        assert np.array_equal(read.vectors, found.vectors)
    encoder = import_word_vectors(tmp_path / "v", tmp_path / "encoder")
    texts = ["the cat sat", "the dog sat", "nothing known"]
    made = encoder.embed(texts)
    np.testing.assert_array_equal(made, selfsup.load(tmp_path / "encoder").embed(texts))
    np.testing.assert_allclose(made, run.encoder.embed(texts), rtol=1e-6)
    where = {word: i for i, word in enumerate(found.words)}
    np.testing.assert_allclose(made[1], (found.vectors[where["the"]] + found.vectors[where["sat"]]) / 2, rtol=1e-6)
    assert (made[2] == 0).all()


def test_words_with_the_names_of_special_tokens_are_no_tokens(tmp_path: Path) -> None:
    write_word_vectors(tmp_path / "v", WordVectors(["a", "[PAD]", "b"], np.eye(3, dtype=np.float32)), binary=True)
    assert word_vectors(import_word_vectors(tmp_path / "v", tmp_path / "encoder")).words == ["a", "b"]
    with pytest.raises(ValueError, match="not empty"):
        import_word_vectors(tmp_path / "v", tmp_path / "encoder")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 1), np.uint8)
    images[:2] = 255
    run = pretrain(images, "simsiam", out=tmp_path / "run", batch_size=4, steps=1, quiet=True)
    with pytest.raises(ValueError, match="learns a table of words, got encoder small"):
        export_word_vectors(run.path, tmp_path / "v")
    with pytest.raises(ValueError, match="leave out --optimizer"):
        pretrain(["a b c\n" * 40], "word2vec", out=tmp_path / "w", optimizer="sgd", sequence_length=8, quiet=True, threads=1)
    with pytest.raises(ValueError, match="word2vec trains on the processor"):
        pretrain(["a b c\n" * 40], "word2vec", out=tmp_path / "w", device="cuda", quiet=True)
