"""Nearest neighbours by cosine, and the weighted vote that measures an encoder with no training at all.

The vote is that of Wu, Xiong, Yu and Lin, CVPR 2018, section 3.4. https://arxiv.org/abs/1805.01978
Both sides are walked in chunks with a running list of the best, so that no (queries, keys) matrix ever exists.

Axes: M queries, N keys, D width, k neighbours.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.evaluation.features import check_labelled, top1

QUERY_CHUNK = 512  # rows; with the next line a block of similarities takes 32 MiB
KEY_CHUNK = 16_384


def neighbours(
    queries: Float[Tensor, "M D"],
    keys: Float[Tensor, "N D"],
    k: int,
    *,
    query_chunk: int = QUERY_CHUNK,
    key_chunk: int = KEY_CHUNK,
) -> tuple[Float[Tensor, "M k"], Int[Tensor, "M k"]]:
    """The k keys with the largest cosine similarity to each query, best first: (similarities in [-1, 1], rows of `keys`).

    A query that is among the keys finds itself first. A row of zeros has similarity 0 to everything. Which of several keys with exactly
    the same similarity makes the last place is not specified.

    Raises:
        ValueError: k is not in 1..N.
    """
    if not 1 <= k <= len(keys):
        raise ValueError(f"k must be between 1 and the number of keys, {len(keys)}; got {k}")
    found = list(_blocks(queries, keys, k, query_chunk, key_chunk))
    if not found:  # no queries
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device)
    return torch.cat([s for s, _ in found]), torch.cat([i for _, i in found])


def knn_predict(
    train_x: Float[Tensor, "N D"],
    train_y: Int[Tensor, " N"],
    test_x: Float[Tensor, "M D"],
    *,
    k: int = 200,
    temperature: float = 0.1,
    query_chunk: int = QUERY_CHUNK,
    key_chunk: int = KEY_CHUNK,
) -> Int[Tensor, " M"]:
    """Class of each test row by the vote of its k nearest training rows, each with weight exp(cosine / temperature).

    Args:
        train_y: classes, 0 or above.
        k: voters; all training rows vote where there are fewer than k.
        temperature: of the weights, above 0; small values listen to the nearest only. 0.1 here; the paper has 0.07.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    classes, predicted = int(train_y.max()) + 1, []
    for similarity, index in _blocks(test_x, train_x, min(k, len(train_x)), query_chunk, key_chunk):
        # The nearest has weight 1: the same winner, and no overflow at a small temperature.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(weight), classes).scatter_add_(1, train_y[index], weight)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def knn_top1(
    train_x: Float[Tensor, "N D"],
    train_y: Int[Tensor, " N"],
    test_x: Float[Tensor, "M D"],
    test_y: Int[Tensor, " M"],
    *,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Fraction of test rows, 0 to 1, whose class wins the vote of `knn_predict`; k is clipped to the N training rows.

    Raises:
        ValueError: no rows, unknown (negative) labels, vectors that are not finite, k below 1, temperature not above 0.
    """
    check_labelled(train_x, train_y, test_x, test_y)
    return top1(knn_predict(train_x, train_y, test_x, k=k, temperature=temperature), test_y)


@torch.no_grad()
def _blocks(queries: Tensor, keys: Tensor, k: int, query_chunk: int, key_chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(similarities, indices) of each chunk of queries, best first."""
    for q in queries.split(query_chunk):
        q = F.normalize(q, dim=1)
        best, where = q.new_empty(len(q), 0), torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
        for first in range(0, len(keys), key_chunk):
            # Normalised anew for each chunk of queries: 1/query_chunk of the product's cost, and no second copy of the keys.
            block = q @ F.normalize(keys[first : first + key_chunk], dim=1).T
            values, columns = block.topk(min(k, block.shape[1]), dim=1)
            best, where = torch.cat([best, values], dim=1), torch.cat([where, columns + first], dim=1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, order)
        yield best, where
