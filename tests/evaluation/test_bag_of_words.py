"""Bag of words against scikit-learn's TF-IDF, and as a row of the table of text."""

import numpy as np
import pytest
import torch

from selfsup.data.text.texts import open_sentences
from selfsup.data.text.tokenizer import Tokenizer, train_tokenizer
from selfsup.evaluation.bag_of_words import bag_of_words

WORDS = [f"{a}{b}" for a in "bdklmn" for b in "aeiou"]


@pytest.fixture(scope="module")
def texts() -> tuple[list[str], list[str], Tokenizer]:
    rng = np.random.default_rng(0)
    made = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(60)]
    return made[:40], made[40:], train_tokenizer(made, "word", vocabulary_size=100)


def test_it_is_tf_idf_up_to_a_rotation(texts: tuple[list[str], list[str], Tokenizer]) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, test, tokenizer = texts
    theirs = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\S+")
    x_train, x_test = torch.from_numpy(theirs.fit_transform(train).toarray()), torch.from_numpy(theirs.transform(test).toarray())
    items = [open_sentences(part, tokenizer=tokenizer, length=32) for part in (train, test)]
    z_train, z_test = bag_of_words(*items)
    assert z_train.shape == (40, x_train.shape[1])  # as many directions as tokens: nothing is lost
    torch.testing.assert_close((z_test @ z_train.T).double(), x_test @ x_train.T, atol=1e-5, rtol=1e-5)
    few, _ = bag_of_words(*items, width=5)
    best = torch.linalg.svdvals(x_train)[:5].square().sum()
    assert 0.99 < float(few.square().sum() / best) <= 1.0001


def test_mistakes_are_named() -> None:
    from selfsup.data import open_data

    items = open_data(np.zeros((4, 3), np.float32), cache=False)
    with pytest.raises(ValueError, match="a bag of words needs text, got"):
        bag_of_words(items, items)
