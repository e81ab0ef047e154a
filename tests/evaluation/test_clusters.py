"""Cluster scores against brute force, scipy, scikit-learn, and numbers by hand."""

import itertools
import math

import numpy as np
import pytest

from selfsup.evaluation.clusters import assign, cluster_scores, contingency, normalised_mutual_information


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (3, 5), (5, 3), (4, 4)])
def test_matching_is_the_best_of_all(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for high in (2, 5, 1000):  # few values: many ties
        for _ in range(30):
            profit = generator.integers(-high, high, shape)
            rows, columns = assign(profit)
            assert len(rows) == len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
            assert (np.diff(rows) > 0).all()
            wide = profit if shape[0] <= shape[1] else profit.T
            best = max(
                sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
            )
            assert profit[rows, columns].sum() == best


def test_matching_of_many_is_scipys() -> None:
    from scipy.optimize import linear_sum_assignment

    generator = np.random.default_rng(0)
    for shape in ((60, 60), (20, 10), (30, 90)):
        profit = generator.normal(size=shape)
        theirs = profit[linear_sum_assignment(profit, maximize=True)].sum()
        assert profit[assign(profit)].sum() == pytest.approx(theirs, rel=1e-9)


def test_scores_by_hand() -> None:
    #            class 0  class 1
    # symbol 0      3        1
    # symbol 4      2        0
    # symbol 7      0        4
    symbols = np.array([0, 0, 0, 0, 4, 4, 7, 7, 7, 7])
    labels = np.array([0, 0, 0, 1, 0, 0, 1, 1, 1, 1])
    assert contingency(symbols, labels).tolist() == [[3, 1], [2, 0], [0, 4]]
    scores = cluster_scores(symbols, labels)
    assert scores.one_to_one == pytest.approx(7 / 10)  # the two items of symbol 4 have no class left
    assert scores.many_to_one == pytest.approx(9 / 10)
    assert (scores.symbols_used, scores.classes) == (3, 2)
    information = 0.3 * math.log(0.3 / 0.2) + 0.1 * math.log(0.1 / 0.2) + 0.2 * math.log(0.2 / 0.1) + 0.4 * math.log(0.4 / 0.2)
    entropies = -(0.4 * math.log(0.4) + 0.2 * math.log(0.2) + 0.4 * math.log(0.4)), math.log(2)
    assert scores.nmi == pytest.approx(information / (sum(entropies) / 2), rel=1e-9)


def test_greed_is_not_a_matching() -> None:
    """Both symbols are mostly class 0; the best matching gives it to the one that loses more without it."""
    symbols, labels = np.repeat([0, 0, 1, 1], [10, 9, 8, 0]), np.repeat([0, 1, 0, 1], [10, 9, 8, 0])
    scores = cluster_scores(symbols, labels)
    assert scores.one_to_one == pytest.approx(17 / 27)  # 9 + 8, not 10 + 0
    assert scores.many_to_one == pytest.approx(18 / 27)


def test_nmi_is_scikit_learns() -> None:
    from sklearn.metrics import normalized_mutual_info_score

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 500)
    symbols = np.where(generator.random(500) < 0.6, labels, generator.integers(0, 20, 500))
    assert cluster_scores(symbols, labels).nmi == pytest.approx(normalized_mutual_info_score(labels, symbols), rel=1e-9)
    assert cluster_scores(labels, labels).nmi == pytest.approx(1.0)
    assert cluster_scores(np.zeros(500, np.int64), labels).nmi == pytest.approx(0.0)
    assert normalised_mutual_information(np.array([[5]])) == 1.0


def test_names_of_symbols_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    labels, symbols = generator.integers(0, 4, (2, 200))
    renamed = np.array([9, 2, 30, 0])[symbols]
    one, other = cluster_scores(renamed, labels), cluster_scores(symbols, labels)
    assert (one.one_to_one, one.many_to_one, one.symbols_used) == (other.one_to_one, other.many_to_one, other.symbols_used)
    assert one.nmi == pytest.approx(other.nmi, rel=1e-9)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="as many labels as symbols and at least one, got 3 symbols and 2 labels"):
        cluster_scores(np.array([0, 1, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="a label of -1 means unknown"):
        cluster_scores(np.array([0, 1]), np.array([0, -1]))
    with pytest.raises(ValueError, match="finite"):
        assign(np.array([[np.nan]]))
