"""Anomaly measures against their definitions and scikit-learn; thresholds that keep their promise; distances without a matrix."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from selfsup.evaluation import anomaly
from selfsup.evaluation.anomaly import average_precision, find_threshold, measure, neighbour_distance, roc_auc, standard


def drawn(seed: int, *, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores, perhaps with many ties, and who is an anomaly."""
    random = np.random.default_rng(seed)
    anomalous = random.random(200) < 0.2
    scores = random.normal(size=200) + anomalous
    return (np.round(scores * levels) / levels if levels else scores), anomalous


@pytest.mark.parametrize("levels", [None, 4, 1])
@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_scikit_learn(seed: int, levels: int | None) -> None:
    scores, anomalous = drawn(seed, levels=levels)
    assert roc_auc(scores, anomalous) == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert average_precision(scores, anomalous) == pytest.approx(average_precision_score(anomalous, scores), abs=1e-12)


def test_roc_auc_counts_pairs() -> None:
    scores, anomalous = drawn(5, levels=2)
    wins = [(a > b) + 0.5 * (a == b) for a in scores[anomalous] for b in scores[~anomalous]]
    assert roc_auc(scores, anomalous) == pytest.approx(np.mean(wins), abs=1e-12)


def test_what_is_known_by_hand() -> None:
    truth = np.array([True, False, True, False])
    assert roc_auc(np.array([4.0, 3.0, 2.0, 1.0]), truth) == 0.75
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc(np.zeros(4), truth) == 0.5
    assert average_precision(np.zeros(4), truth) == 0.5, "the share of anomalies"
    assert roc_auc(np.array([np.inf, 0.0, 5.0, 1.0]), truth) == 1.0


def test_intervals_are_those_of_another_sample() -> None:
    """Of 20 samples, the 95 % interval of each should hold the long-run value in all but a few."""
    anomalous = np.arange(200) < 60
    held = 0
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(size=200) + anomalous
        found = measure(scores, anomalous, seed=seed)["roc_auc"]
        held += found.low <= 0.7602 <= found.high  # Phi(1 / sqrt 2)
        assert found.low < found.value < found.high
    assert held >= 16
    assert measure(scores, anomalous, seed=1) == measure(scores, anomalous, seed=1)


def test_measures_need_both_kinds_and_numbers() -> None:
    for scores, truth, message in [
        (np.zeros(3), np.zeros(3, bool), "got 0 anomalies among 3"),
        (np.zeros(3), np.ones(3, bool), "got 3 anomalies among 3"),
        (np.array([0.0, np.nan]), np.array([True, False]), "a score that is a number"),
    ]:
        with pytest.raises(ValueError, match=message):
            roc_auc(scores, truth)


def test_a_threshold_keeps_its_rate_of_false_alarms() -> None:
    """On average over samples of held-out items, new normal items exceed it no more often than promised, whatever the distribution."""
    random = np.random.default_rng(0)
    for n, wanted in ((99, 0.01), (50, 0.1), (37, 0.25)):
        rates = []
        for _ in range(2000):
            found = find_threshold(random.exponential(size=n), wanted)
            rates.append(np.exp(-found.value))
        assert found.expected <= wanted + 1e-12
        assert np.mean(rates) == pytest.approx(found.expected, rel=0.06)
        assert found.expected > wanted - 1 / (n + 1), "and no lower rate than it needs"


def test_too_few_held_out_items_are_said() -> None:
    scores = np.arange(20.0)[::-1].copy()
    found = find_threshold(scores, 0.01)
    assert (found.value, found.held_out, found.wanted) == (19.0, 20, 0.01)
    assert found.expected == pytest.approx(1 / 21)
    assert find_threshold(np.arange(99.0), 0.01).value == 98.0, "100 places: the largest of 99 is exceeded by 1 in 100"
    assert find_threshold(np.arange(199.0), 0.01).value == 197.0
    for n, rate in ((0, 0.1), (5, 0.0), (5, 1.0)):
        with pytest.raises(ValueError, match="a threshold needs normal items and a rate"):
            find_threshold(np.zeros(n), rate)


@pytest.mark.parametrize("width", [3, 40])
def test_distances_are_means_over_the_nearest(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly, "QUERY_CHUNK", 7)
    monkeypatch.setattr(anomaly, "KEY_CHUNK", 11)
    torch.manual_seed(0)
    queries, normal = torch.randn(20, width) * 3, torch.randn(30, width)
    expected = (queries[:, None] - normal[None]).norm(dim=2).sort(dim=1).values[:, :4].mean(dim=1)
    torch.testing.assert_close(neighbour_distance(queries, normal, 4), expected, rtol=1e-5, atol=1e-5)
    assert neighbour_distance(queries[:0], normal, 1).shape == (0,)
    for k in (0, 31):
        with pytest.raises(ValueError, match="k must be between 1 and the number of normal items to compare with, 30"):
            neighbour_distance(queries, normal, k)


def test_vectors_are_standardised_by_the_normal_ones() -> None:
    z = torch.randn(100, 3) * torch.tensor([10.0, 1e-4, 0.0]) + torch.tensor([5.0, 0.0, 2.0])
    own = standard(z)
    torch.testing.assert_close(own(z).std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    assert float(own(torch.tensor([[5.0, 0.0, 3.0]]))[0, 2]) == pytest.approx(1.0)
