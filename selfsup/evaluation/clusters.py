"""What symbols that were found without labels have to do with classes: accuracy under the best naming of symbols, and mutual information.

Axes: N items, K symbols, C classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True)
class ClusterScores:
    """Figures of one clustering.

    Attributes:
        one_to_one: share of items that are right when each class is given one symbol of its own, the best such matching: cluster accuracy
            in the strict sense, 0 to 1. With more symbols than classes, items of the symbols left over are all wrong.
        many_to_one: share of items that are right when every symbol is named after its most frequent class, which several may share:
            purity, never below `one_to_one`. It grows with the number of symbols, up to 1 where each item has its own.
        nmi: mutual information of symbol and class over the mean of their entropies, 0 to 1.
        symbols_used: symbols that at least one item has.
        classes: how many there are.
    """

    one_to_one: float
    many_to_one: float
    nmi: float
    symbols_used: int
    classes: int


def cluster_scores(symbols: Int[np.ndarray, " N"], labels: Int[np.ndarray, " labels"]) -> ClusterScores:
    """All figures, of the symbol and the class of each item.

    Raises:
        ValueError: no items, not as many labels, or negative ones, which mean unknown.
    """
    if len(symbols) != len(labels) or len(labels) == 0:
        raise ValueError(f"expected as many labels as symbols and at least one, got {len(symbols)} symbols and {len(labels)} labels")
    if min(symbols.min(), labels.min()) < 0:
        raise ValueError("symbols and labels must be 0 or more; a label of -1 means unknown: leave those items out")
    counts = contingency(symbols, labels)
    right = counts[*assign(counts)].sum()
    return ClusterScores(
        one_to_one=float(right / len(labels)),
        many_to_one=float(counts.max(axis=1).sum() / len(labels)),
        nmi=normalised_mutual_information(counts),
        symbols_used=int((counts.sum(axis=1) > 0).sum()),
        classes=counts.shape[1],
    )


def contingency(symbols: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, "K C"]:
    """How many items have each symbol and class; rows and columns are those that occur, in ascending order."""
    _, row = np.unique(symbols, return_inverse=True)
    _, column = np.unique(labels, return_inverse=True)
    counts = np.zeros((row.max() + 1, column.max() + 1), np.int64)
    np.add.at(counts, (row, column), 1)
    return counts


def assign(profit: Shaped[np.ndarray, "K C"]) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """The matching of rows and columns, each in at most one pair, whose sum of profits is largest: min(K, C) pairs.

    Kuhn 1955, by shortest augmenting paths (Jonker and Volgenant 1987): rows come in one by one, each over the cheapest path of pairs that
    change; `u` and `v` are prices under which no pair costs less than nothing. O(K C min(K, C)).

    Returns:
        Rows in ascending order, and the column of each.

    Raises:
        ValueError: a profit is not finite.
    """
    if not np.isfinite(profit).all():
        raise ValueError("a matching needs finite profits")
    if profit.shape[0] > profit.shape[1]:
        columns, rows = assign(profit.T)
        order = rows.argsort()
        return rows[order], columns[order]
    cost = -profit.astype(np.float64)
    n, m = cost.shape
    u, v = np.zeros(n), np.zeros(m)
    row_of = np.full(m, -1)  # each column's row
    for new in range(n):
        distance, before = np.full(m, np.inf), np.full(m, -1)
        reached, row, column, least = np.zeros(m, bool), new, -1, 0.0
        while row >= 0:  # until a column is reached that has no row
            step = least + cost[row] - u[row] - v
            closer = ~reached & (step < distance)
            distance[closer], before[closer] = step[closer], column
            column = int(np.where(reached, np.inf, distance).argmin())
            least, row = distance[column], row_of[column]
            reached[column] = True
        paid = reached & (distance < least)
        u[row_of[paid]] += least - distance[paid]
        u[new] += least
        v[paid] -= least - distance[paid]
        while column >= 0:  # every column on the path takes the row of the one before
            earlier = before[column]
            row_of[column] = row_of[earlier] if earlier >= 0 else new
            column = earlier
    columns = np.flatnonzero(row_of >= 0)
    order = row_of[columns].argsort()
    return row_of[columns][order], columns[order]


def normalised_mutual_information(counts: Int[np.ndarray, "K C"]) -> float:
    """I(symbol; class) / mean of both entropies, from counts; 1 where both are one and the same, as where there is one of each."""
    p = counts / counts.sum()
    symbol, label, both = (_entropy(q) for q in (p.sum(axis=1), p.sum(axis=0), p.ravel()))
    mean = (symbol + label) / 2
    return float(np.clip((symbol + label - both) / mean, 0, 1)) if mean > 0 else 1.0


def _entropy(p: Float[np.ndarray, " n"]) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
