"""A contest between methods: from one row a run to means with intervals, a ranking, and what may be said of it.

A row is a dictionary: "method", "seed", "state" ("finished" or "failed"), "error", and figures; see `FIGURES` and `ACCURACIES`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfsup.evaluation.few_label import NORMAL_95, interval
from selfsup.evaluation.measures import spearman

Row = Mapping[str, Any]

ACCURACIES = ("knn_top1", "linear_top1")
LABEL_FREE = ("rankme", "alpha_req", "lidar")
FIGURES = (*LABEL_FREE, "images_per_second", "peak_mib", "seconds", "images")
FEW = "10"  # labels a class, of the second sentence

TRUST = (
    "Measures without labels compare checkpoints of one method better than different methods, and are larger for wider networks: "
    "take this order as a hint, and label some dozens of items of each class to be sure."
)


def summarise(
    rows: Sequence[Row], methods: Sequence[str], baselines: Mapping[str, Any] | None, tested: int | None = None
) -> dict[str, Any]:
    """What a contest has found so far, as JSON can hold it.

    Args:
        rows: one for each run that has ended.
        methods: all that take part, also those without a row yet.
        baselines: "pixels_pca" and "untrained", each with accuracies; None without labels.
        tested: items that accuracies are shares of; None to leave out what is due to these.

    Returns:
        "methods": for each its "runs", "failed", "error", "warnings", and {"mean", "low", "high"} of every figure (95 %: Student's t over
        the runs, and of accuracies the finite number of test items besides, of few labels also the draws of these, which are the same for
        all runs; variances added).
        "ranking": ids, best first, by "ranked_by": "knn_top1", or "label-free", the mean rank by the three measures.
        "tied_with_best": those whose interval of kNN meets that of the best. "agreement": Spearman's rank correlation of each label-free
        measure with kNN over all runs (of alpha-ReQ, of how near it is to 1); None without labels. "advice": sentences, the first is the
        headline. "baselines": as given.
    """
    found = {method: _summary([row for row in rows if row["method"] == method], tested) for method in methods}
    done = [method for method in methods if found[method]["runs"]]
    labelled = any(found[method]["knn_top1"] for method in done)
    ranking = sorted(done, key=lambda m: -found[m]["knn_top1"]["mean"]) if labelled else by_label_free({m: found[m] for m in done})
    tied = [m for m in ranking[1:] if labelled and _meet(found[m]["knn_top1"], found[ranking[0]]["knn_top1"])]
    result = {
        "methods": found,
        "baselines": baselines,
        "ranking": ranking,
        "ranked_by": "knn_top1" if labelled else "label-free",
        "tied_with_best": tied,
        "agreement": {name: _agreement(rows, name) for name in LABEL_FREE} if labelled else None,
    }
    return {**result, "advice": _advice(result)}


def _summary(rows: Sequence[Row], tested: int | None) -> dict[str, Any]:
    finished = [row for row in rows if row["state"] == "finished"]
    failed = [row for row in rows if row["state"] != "finished"]
    counts = finished[0]["few_label"] if finished and finished[0].get("few_label") else {}
    return {
        "runs": len(finished),
        "failed": len(failed),
        "error": failed[0]["error"] if failed else None,
        "warnings": list(dict.fromkeys(text for row in finished for text in row.get("warnings", ()))),
        **{name: _mean([row.get(name) for row in finished], 1.0, tested) for name in ACCURACIES},
        **{name: _mean([row.get(name) for row in finished], math.inf) for name in FIGURES},
        "few_label": {
            n: _mean(
                [row["few_label"].get(n) for row in finished], 1.0, tested, [row.get("few_label_draws", {}).get(n) for row in finished]
            )
            for n in counts
        }
        or None,
    }


def _mean(
    values: Iterable[float | int | None], largest: float, tested: int | None = None, shared: Iterable[float | None] = ()
) -> dict[str, float | None] | None:
    """Mean of the runs' values and its interval; `shared` are reaches due to what all runs have in common."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    if len(known) == 1:
        return {"mean": known[0], "low": None, "high": None}
    mean, _, high = interval(known, largest=math.inf)
    items = NORMAL_95 * math.sqrt(max(0.0, mean * (1 - mean)) / tested) if tested else 0.0
    common = [reach for reach in shared if reach is not None]
    reach = math.hypot(high - mean, items, sum(common) / len(common) if common else 0.0)
    return {"mean": mean, "low": max(0.0, mean - reach), "high": min(largest, mean + reach)}


def by_label_free(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Best first, by the mean of the ranks under RankMe and LiDAR (high is good) and alpha-ReQ (near 1 is good); unmeasured ones last."""
    worth = {
        "rankme": lambda value: value,
        "lidar": lambda value: value,
        "alpha_req": lambda value: -abs(value - 1),
    }

    def score(method: str, measure: str) -> float:
        entry = found[method][measure]
        return worth[measure](entry["mean"]) if entry else -math.inf

    def rank(method: str) -> int:
        return sum(sum(score(other, m) > score(method, m) for other in found) for m in worth)

    return sorted(found, key=rank)


def _meet(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> bool:
    if a["low"] is None or b["low"] is None or a["high"] is None or b["high"] is None:
        return True  # one run has no interval, so nothing tells them apart
    return a["low"] <= b["high"] and b["low"] <= a["high"]


def _agreement(rows: Sequence[Row], measure: str) -> dict[str, Any]:
    pairs = [(row[measure], row["knn_top1"]) for row in rows if row["state"] == "finished"]
    pairs = [(a, b) for a, b in pairs if a is not None and b is not None and math.isfinite(a)]
    if measure == "alpha_req":
        pairs = [(-abs(a - 1), b) for a, b in pairs]
    rho = spearman([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) >= 3 else math.nan
    return {"rho": rho if math.isfinite(rho) else None, "runs": len(pairs)}


def _advice(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences that claim nothing the intervals do not show."""
    found, ranking = result["methods"], result["ranking"]
    if not ranking:
        failed = [method for method in found if found[method]["failed"]]
        return [f"All runs so far have failed: {failed[0]}: {found[failed[0]]['error']}" if failed else "No run has finished yet."]
    best = ranking[0]
    if result["ranked_by"] != "knn_top1":
        return [f"Without labels, {best} comes first by the mean rank of RankMe, alpha-ReQ and LiDAR.", TRUST]
    tied = result["tied_with_best"]
    knn = _percent(found[best]["knn_top1"])
    level = [m for m in tied if found[m]["knn_top1"]["mean"] == found[best]["knn_top1"]["mean"]]
    if level:
        said = [f"{_listed([best, *level])} come first together on this data at this budget: {knn} kNN accuracy."]
        if others := [m for m in tied if m not in level]:
            said.append(f"{_listed(others)} cannot be told apart from {'both' if len(level) == 1 else 'these'}.")
    elif len(ranking) == 1:
        said = [f"{best} reaches {knn} kNN accuracy on this data at this budget; nothing else was compared."]
    elif tied:
        said = [f"{best} leads on this data at this budget with {knn} kNN accuracy, but {_listed(tied)} cannot be told apart from it."]
        said.append("Intervals that meet prove nothing: more seeds or a longer budget would tell.")
    else:
        said = [f"{best} is best on this data at this budget: {knn} kNN accuracy."]
    said += _beside_baselines(found[best]["knn_top1"], result["baselines"])
    with_few = {m: found[m]["few_label"][FEW]["mean"] for m in ranking if found[m]["few_label"] and FEW in found[m]["few_label"]}
    if with_few and (first := max(with_few, key=lambda m: with_few[m])) != best:
        few = {m: found[m]["few_label"][FEW] for m in (first, best) if m in with_few}
        apart = best in few and not _meet(few[first], few[best])
        said.append(f"With {FEW} labels a class {first} {'is' if apart else 'seems'} better: {_percent(few[first])}.")
    return said


def _beside_baselines(best: Mapping[str, float | None], baselines: Mapping[str, Any] | None) -> list[str]:
    names = {"pixels_pca": "raw pixels", "untrained": "the untrained network"}
    figures = {names[key]: row["knn_top1"] for key, row in (baselines or {}).items() if row.get("knn_top1") is not None}
    lost = [f"{name} ({100 * figure:.1f} %)" for name, figure in figures.items() if best["low"] is None or figure >= best["low"]]
    return [f"It is not shown to beat {_listed(lost)}: more seeds, a longer budget or another method would tell."] if lost else []


def _percent(entry: Mapping[str, float | None]) -> str:
    assert entry["mean"] is not None
    if entry["low"] is None or entry["high"] is None:
        return f"{100 * entry['mean']:.1f} %"
    return f"{100 * entry['mean']:.1f} % ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
