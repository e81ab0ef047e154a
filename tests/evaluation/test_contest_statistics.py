"""What a contest may claim: means and intervals by hand, rankings, and sentences that the intervals bear out."""

import math
from typing import Any

import pytest

from selfsup.evaluation.contest_statistics import TRUST, by_label_free, summarise


def row(method: str, seed: int, knn: float | None, **more: Any) -> dict[str, Any]:
    figures = {"linear_top1": knn, "few_label": None if knn is None else {"1": knn / 2, "10": knn * 0.9}}
    free = {"rankme": 10.0, "alpha_req": 1.0, "lidar": 20.0, "images_per_second": 100.0, "peak_mib": 500.0, "seconds": 60.0, "images": 6000}
    return {"method": method, "seed": seed, "state": "finished", "error": "", "knn_top1": knn, **figures, **free, "warnings": [], **more}


def failed(method: str, seed: int) -> dict[str, Any]:
    return {"method": method, "seed": seed, "state": "failed", "error": "needs a vit", "peak_mib": 3.0}


def test_means_and_intervals_over_seeds() -> None:
    rows = [row("a", seed, knn) for seed, knn in enumerate((0.50, 0.52, 0.54))]
    entry = summarise(rows, ["a"], None)["methods"]["a"]
    reach = 4.302653 * 0.02 / math.sqrt(3)  # t with 2 degrees of freedom, standard deviation 0.02
    assert entry["knn_top1"] == pytest.approx({"mean": 0.52, "low": 0.52 - reach, "high": 0.52 + reach})
    assert entry["few_label"]["10"]["mean"] == pytest.approx(0.468)
    assert entry["rankme"] == pytest.approx({"mean": 10.0, "low": 10.0, "high": 10.0})  # not clipped at 1


def test_the_ranking_says_who_cannot_be_told_apart() -> None:
    rows = [row("close", s, k) for s, k in enumerate((0.50, 0.52, 0.54))] + [row("best", s, k) for s, k in enumerate((0.55, 0.56, 0.57))]
    rows += [row("far", s, k) for s, k in enumerate((0.20, 0.21, 0.22))]
    result = summarise(rows, ["far", "close", "best"], {"pixels_pca": {"knn_top1": 0.40}, "untrained": {"knn_top1": 0.34}})
    assert result["ranking"] == ["best", "close", "far"]
    assert result["tied_with_best"] == ["close"]
    assert "best leads" in result["advice"][0]
    assert "close cannot be told apart" in result["advice"][0]
    assert not any("raw pixels" in sentence for sentence in result["advice"])
    apart = summarise(rows[3:], ["far", "best"], {"pixels_pca": {"knn_top1": 0.56}})
    assert apart["advice"][0].startswith("best is best on this data at this budget: 56.0 %")
    assert apart["advice"][1] == "It is not shown to beat raw pixels (56.0 %): more seeds, a longer budget or another method would tell."


def test_an_interval_knows_that_test_items_are_few() -> None:
    """Two runs that agree say nothing of other test items: 11 of 12 beside 10 of 12 is one item."""
    rows = [row("a", s, 11 / 12) for s in range(2)] + [row("b", s, 10 / 12) for s in range(2)]
    result = summarise(rows, ["a", "b"], None, tested=12)
    reach = 1.959964 * math.sqrt(11 / 12 * 1 / 12 / 12)
    assert result["methods"]["a"]["knn_top1"]["low"] == pytest.approx(11 / 12 - reach)
    assert result["methods"]["a"]["knn_top1"]["high"] == 1.0
    assert result["methods"]["a"]["rankme"]["low"] == 10.0  # is no share of items
    assert result["tied_with_best"] == ["b"]
    spread = [row("a", s, knn) for s, knn in enumerate((0.50, 0.52, 0.54))]
    low = summarise(spread, ["a"], None, tested=100)["methods"]["a"]["knn_top1"]["low"]
    runs, items = 4.302653 * 0.02 / math.sqrt(3), 1.959964 * math.sqrt(0.52 * 0.48 / 100)
    assert low == pytest.approx(0.52 - math.hypot(runs, items))


def test_an_interval_with_few_labels_knows_that_their_draws_are_shared_by_all_runs() -> None:
    rows = [row("a", s, 0.5 + s / 100, few_label={"10": 0.4}, few_label_draws={"10": reach}) for s, reach in enumerate((0.02, 0.04))]
    found = summarise(rows, ["a"], None)["methods"]["a"]["few_label"]["10"]
    assert (found["low"], found["high"]) == (pytest.approx(0.37), pytest.approx(0.43))  # the runs agree: what is left is the draws'
    for r in rows:
        del r["few_label_draws"]  # rows from before
    assert summarise(rows, ["a"], None)["methods"]["a"]["few_label"]["10"]["low"] == 0.4


def test_equal_means_come_first_together_and_one_alone_leads_nobody() -> None:
    rows = [row(m, s, 0.5 + s / 100) for m in ("a", "b") for s in range(2)]
    assert summarise(rows, ["a", "b"], None)["advice"][0].startswith("a and b come first together on this data")
    assert "nothing else was compared" in summarise(rows[:2], ["a"], None)["advice"][0]
    one = summarise([row("a", 0, 0.9)], ["a"], {"pixels_pca": {"knn_top1": 0.5}})
    assert "not shown to beat raw pixels" in one["advice"][1]  # one run has no interval


def test_one_run_of_each_has_no_interval_and_settles_nothing() -> None:
    result = summarise([row("a", 0, 0.9), row("b", 0, 0.1)], ["a", "b"], None)
    assert result["methods"]["a"]["knn_top1"] == {"mean": 0.9, "low": None, "high": None}
    assert result["tied_with_best"] == ["b"]


def test_another_winner_with_few_labels_is_named() -> None:
    rows = [row("a", s, 0.60 + s / 100) for s in range(3)]
    rows += [row("b", s, 0.50 + s / 100, few_label={"1": 0.1, "10": 0.70 + s / 100}) for s in range(3)]
    assert any("With 10 labels a class b is better: 71.0 %" in sentence for sentence in summarise(rows, ["a", "b"], None)["advice"])


def test_failed_and_missing_methods_stay_in_sight() -> None:
    result = summarise([row("a", 0, 0.5), failed("b", 0)], ["a", "b", "c"], None)
    assert result["ranking"] == ["a"]
    assert (result["methods"]["b"]["failed"], result["methods"]["b"]["error"]) == (1, "needs a vit")
    assert result["methods"]["c"]["runs"] == 0
    assert summarise([], ["a"], None)["advice"] == ["No run has finished yet."]
    assert summarise([failed("b", 0)], ["b"], None)["advice"] == ["All runs so far have failed: b: needs a vit"]


def test_agreement_is_a_rank_correlation_over_runs() -> None:
    free = [(10.0, 0.2), (20.0, 1.6), (30.0, 1.1), (40.0, 0.95)]  # alpha-ReQ: the nearer to 1 the better
    rows = [row("a", s, 0.1 * (s + 1), rankme=r, alpha_req=a, lidar=-r) for s, (r, a) in enumerate(free)]
    agreement = summarise(rows, ["a"], None)["agreement"]
    assert agreement["rankme"] == {"rho": pytest.approx(1.0), "runs": 4}
    assert agreement["lidar"]["rho"] == pytest.approx(-1.0)
    assert agreement["alpha_req"]["rho"] == pytest.approx(1.0)
    assert summarise(rows[:2], ["a"], None)["agreement"]["rankme"] == {"rho": None, "runs": 2}


def test_without_labels_three_measures_vote_and_trust_is_spoken_of() -> None:
    measured = {"low": (5.0, 3.0, 4.0), "high": (50.0, 1.1, 40.0), "mixed": (60.0, 0.2, 30.0)}
    rows = [
        row(name, 0, None, rankme=rank, alpha_req=alpha, lidar=lda, few_label=None, linear_top1=None)
        for name, (rank, alpha, lda) in measured.items()
    ]
    result = summarise(rows, list(measured), None)
    assert result["ranked_by"] == "label-free"
    assert result["ranking"] == ["high", "mixed", "low"]  # ranks 1 0 0, 0 1 1 and 2 2 2
    assert result["agreement"] is None
    assert result["advice"][1] == TRUST
    assert by_label_free({"x": {"rankme": None, "alpha_req": None, "lidar": None}}) == ["x"]
