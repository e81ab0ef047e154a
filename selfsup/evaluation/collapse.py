"""Is a run worth going on with? Its measures in, one plain sentence with the likely cause out.

A sentence holds no figure that changes, so that one said again is known to be the same; figures stand in the run's metrics. Thresholds
lie well between what healthy and sabotaged runs of `benchmarks/collapse.py` have; docs/results.md says how often they are right.
"""

import math
from typing import NamedTuple

COLLAPSED = 0.02  # deviation; freshly initialised networks have 0.1 and more
NARROW = 0.02  # part of the directions; freshly initialised networks use 0.04 and more
AGREEING = 0.15  # deviation of what a loss compares; healthy runs have 0.28 and more
FEW = 2.5  # effective rank of what a loss compares; healthy runs have 4 and more
HUGE = 50.0  # standard deviation of what a loss compares; healthy runs have at most 4
USELESS = 1e-3  # what the right partner takes off a loss, absolute or as a part of it; healthy runs have 0.02 and 0.002 and more


def collapse_warning(rankme: float, deviation: float, width: int, *, rows: int | None = None) -> str | None:
    """What is wrong with embeddings of these measures, and the likely cause, in plain words; None if nothing is.

    Args:
        rankme, deviation: as `selfsup.evaluation.measures` has them, of vectors of length `width`.
        rows: how many embeddings were measured, as their rank cannot be larger; None for no fewer than `width`.
    """
    if not (math.isfinite(rankme) and math.isfinite(deviation)):
        return "the embeddings hold NaN or infinity: training has diverged; go back to an earlier checkpoint and lower the learning rate"
    if deviation < COLLAPSED:
        return (
            f"complete collapse: all inputs get nearly the same embedding (deviation below {COLLAPSED}, 1 is healthy). Likely cause: "
            "nothing keeps embeddings apart, such as negatives, a stopped gradient or a slow teacher; or the learning rate is too high"
        )
    largest = width if rows is None else min(width, rows)
    if largest > 2 and rankme < 1 + NARROW * (largest - 1):
        return (
            f"dimensional collapse: embeddings use less than {NARROW:.0%} of {largest} directions. Likely cause: a shortcut solves the "
            "task, as when views are too alike or show the same colours; or weight decay or temperature is too high"
        )
    return None


class Compared(NamedTuple):
    """What a joint-embedding loss sees of some items, which can collapse long before the encoder's own vectors show it.

    Attributes:
        rankme, deviation: of the vectors that the loss compares, as `selfsup.evaluation.measures` has them.
        size: mean standard deviation of their numbers as they are.
        width: of these vectors.
        matched: the loss of the items' views.
        mismatched: the same when each view is put beside those of other items; None where an item has one view only.
        rows: how many vectors there were, as their rank cannot be larger; None for no fewer than `width`.
    """

    rankme: float
    deviation: float
    size: float
    width: int
    matched: float | None
    mismatched: float | None
    rows: int | None = None


def compared_warning(found: Compared) -> str | None:
    """What is wrong with what the loss compares, and the likely cause, in plain words; None if nothing is."""
    if not all(math.isfinite(x) for x in found if x is not None):
        return (
            "what the loss compares holds NaN or infinity: training has diverged; go back to an earlier checkpoint, lower the learning rate"
        )
    if found.size > HUGE:
        return (
            f"what the loss compares has grown out of bounds (standard deviation above {HUGE:.0f}, a few at most is usual). Likely cause: "
            "the learning rate is far too high"
        )
    largest = found.width if found.rows is None else min(found.width, found.rows)
    narrow = largest > 2 and found.rankme < min(FEW, 1 + largest / 4)
    if narrow or found.deviation < AGREEING:
        return (
            f"what the loss compares is collapsing: hardly more than one of {found.width} directions is used, or all are nearly one "
            f"(deviation below {AGREEING}, 1 is healthy). Likely cause: nothing keeps them apart, such as negatives, a predictor with a "
            "stopped gradient, a slow teacher, or equal shares of clusters; or the learning rate is too high"
        )
    if found.matched is None or found.mismatched is None:
        return None
    gain = found.mismatched - found.matched
    if gain < USELESS * max(1.0, abs(found.matched), abs(found.mismatched)):
        return (
            "the loss is the same for views of one item and of different ones, to a thousandth, so nothing can be learned from it. Likely "
            "cause: a temperature far too high, or embeddings that have collapsed"
        )
    return None
