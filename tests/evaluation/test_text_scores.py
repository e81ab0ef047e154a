"""Scores of text against scikit-learn, scipy, numbers known by hand, and the examples of the official scripts."""

import math

import numpy as np
import pytest
import torch

from selfsup.evaluation.text_scores import accuracy, bits_per_byte, exact_match, f1, matthews, pearson, perplexity, span_f1, spearman

PREDICTED, TRUE = [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0]  # TP 2, FP 1, FN 1, TN 2


def test_numbers_known_by_hand() -> None:
    assert accuracy(PREDICTED, TRUE) == pytest.approx(4 / 6)
    assert f1(PREDICTED, TRUE) == pytest.approx(4 / 6)  # 2 * 2 / (4 + 1 + 1)
    assert f1([1, 1, 1, 0], [1, 0, 0, 0]) == pytest.approx(0.5)  # precision 1/3, recall 1
    assert f1([1, 1, 1, 0], [1, 0, 0, 0], "macro") == pytest.approx(0.5)  # of class 0: precision 1, recall 1/3
    assert f1([0, 0], [0, 1], "macro") == pytest.approx((2 / 3 + 0) / 2)  # a class that nobody says counts
    assert f1([2, 2, 3, 3], [2, 2, 2, 3], "macro") == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert matthews(PREDICTED, TRUE) == pytest.approx((2 * 2 - 1 * 1) / math.sqrt(3 * 3 * 3 * 3))
    assert matthews(TRUE, TRUE) == 1
    assert matthews([1 - x for x in TRUE], TRUE) == -1
    assert pearson([1, 2, 3], [2, 4, 7]) == pytest.approx(5 / math.sqrt(2 * 38 / 3))
    assert perplexity([math.log(4)] * 3) == pytest.approx(4.0)
    assert perplexity([800.0]) == math.inf
    assert math.isnan(perplexity([math.nan]))
    assert bits_per_byte([math.log(256)] * 10, 10) == pytest.approx(8.0)
    assert bits_per_byte(torch.tensor([math.log(2)] * 6), 12) == pytest.approx(0.5)


def test_nobody_says_one_and_nothing_changes() -> None:
    assert f1([0, 0], [0, 0]) == 0
    assert matthews([1, 1, 1], [0, 1, 0]) == 0
    assert matthews([1, 1], [1, 1]) == 0
    assert math.isnan(pearson([0.1] * 3, [1, 2, 3]))
    assert math.isnan(spearman([math.nan, 1.0], [1.0, 2.0]))


def test_classification_is_scikit_learns() -> None:
    from sklearn import metrics

    draw = np.random.default_rng(0)
    for classes in (2, 2, 2, 3, 5):
        p, t = draw.integers(0, classes, (2, 30))
        assert accuracy(p, t) == pytest.approx(metrics.accuracy_score(t, p))
        assert f1(p, t, "macro") == pytest.approx(metrics.f1_score(t, p, average="macro"))
        assert matthews(p, t) == pytest.approx(metrics.matthews_corrcoef(t, p))
        if classes == 2:
            assert f1(torch.tensor(p), t.tolist()) == pytest.approx(metrics.f1_score(t, p))


def test_classes_have_names_or_numbers() -> None:
    said, real = ["cat", "dog", "dog", "cat"], ["cat", "dog", "cat", "cat"]
    number = {"cat": 0, "dog": 1}
    p, t = torch.tensor([number[x] for x in said]), torch.tensor([number[x] for x in real])
    assert accuracy(said, real) == accuracy(p, t) == 0.75
    assert matthews(said, real) == matthews(p, t)
    assert f1(said, real, "macro") == f1(p, t, "macro")


def test_correlations_are_scipys() -> None:
    from scipy import stats

    draw = np.random.default_rng(0)
    for _ in range(10):
        a, b = draw.integers(0, 6, 40).astype(float), draw.normal(size=40)  # with ties
        assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
        assert spearman(torch.tensor(a), b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(range(50_000), range(50_000)) == pytest.approx(1.0)  # no matrix of all pairs


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("The cat, sat.", ["cat sat"], 1, 1),
        ("Denver-Broncos", ["DenverBroncos"], 1, 1),  # punctuation goes, and no space comes
        ("theatre an ape", ["theatre ape"], 1, 1),  # articles are whole words
        ("in the year 1990", ["1990"], 0, 0.5),  # precision 1/3, recall 1
        ("New York City", ["York", "new   york"], 0, 0.8),  # the better of two: 2 * 2 / 5
        ("no no yes", ["no no no no"], 0, 4 / 7),  # words are counted, not only seen
        ("", [], 1, 1),
        ("", ["  "], 1, 1),
        ("something", [""], 0, 0),
        ("", ["something"], 0, 0),
    ],
)
def test_spans_are_squads(prediction: str, answers: list[str], exact: float, overlap: float) -> None:
    assert exact_match(prediction, answers) == exact
    assert span_f1(prediction, answers) == pytest.approx(overlap)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("北京。", ["北京"], 1, 1),
        ("《红楼梦》", ["红楼梦"], 1, 1),
        ("中国北京", ["北京", "上海"], 0, 2 * 2 / 6),
        ("北上京", ["北京"], 0, 2 * 1 / 5),  # a run, not a sub-sequence or a bag
        ("iPhone 6手机", ["iphone手机"], 0, 2 * 2 / 7),  # iphone, 6, 手, 机 and iphone, 手, 机
        ("上海", ["北京"], 0, 0),
    ],
)
def test_chinese_spans_are_cmrcs(prediction: str, answers: list[str], exact: float, overlap: float) -> None:
    assert exact_match(prediction, answers, language="zh") == exact
    assert span_f1(prediction, answers, language="zh") == pytest.approx(overlap)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"two lists of one length, at least one item; got shapes \(2,\) and \(3,\)"):
        accuracy([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least one item"):
        f1([], [])
    with pytest.raises(ValueError, match='needs 0 and 1, got 0, 2; average over more with "macro"'):
        f1([0, 2], [0, 2])
    with pytest.raises(ValueError, match="two figures or more, as many of both; got 1 and 1"):
        pearson([1], [1])
    with pytest.raises(ValueError, match="at least one byte"):
        bits_per_byte([1.0], 0)
    with pytest.raises(ValueError, match="at least one token, got none"):
        perplexity([])
    with pytest.raises(ValueError, match="got one string"):
        span_f1("a", "a")
