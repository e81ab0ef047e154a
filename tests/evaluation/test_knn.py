"""kNN against its formula in loops, on digits, and in memory."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfsup.evaluation import knn
from selfsup.evaluation.features import check_labelled
from selfsup.evaluation.knn import knn_predict, knn_top1, neighbours


def naive_vote(train_x: torch.Tensor, train_y: torch.Tensor, query: torch.Tensor, k: int, temperature: float) -> int:
    cosine = [float(x @ query / (x.norm() * query.norm())) for x in train_x]
    votes: dict[int, float] = {}
    for i in sorted(range(len(train_x)), key=lambda i: -cosine[i])[:k]:
        votes[int(train_y[i])] = votes.get(int(train_y[i]), 0.0) + math.exp(cosine[i] / temperature)
    return max(votes, key=votes.__getitem__)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 1.0), (40, 0.07)])
def test_vote_is_the_formula(k: int, temperature: float) -> None:
    torch.manual_seed(k)
    train_x, train_y, test_x = torch.randn(40, 5), torch.randint(4, (40,)), torch.randn(60, 5)
    expected = [naive_vote(train_x, train_y, query, k, temperature) for query in test_x]
    assert knn_predict(train_x, train_y, test_x, k=k, temperature=temperature).tolist() == expected


def test_near_minority_outvotes_far_majority_only_at_a_low_temperature() -> None:
    angle = torch.tensor([0.1, 1.0, 1.1])
    train_x, train_y = torch.stack([angle.cos(), angle.sin()], dim=1), torch.tensor([1, 0, 0])
    here = torch.tensor([[1.0, 0.0]])
    assert knn_predict(train_x, train_y, here, temperature=0.1).item() == 1
    assert knn_predict(train_x, train_y, here, temperature=10.0).item() == 0
    assert knn_predict(train_x, train_y, here, temperature=1e-4).item() == 1  # exp(1 / 1e-4) overflows


def test_neighbours_are_those_of_a_full_sort() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(30, 6), torch.randn(50, 6)
    full = torch.nn.functional.cosine_similarity(queries[:, None], keys[None], dim=2)
    values, index = full.sort(dim=1, descending=True)
    similarity, found = neighbours(queries, keys, 9)
    torch.testing.assert_close(similarity, values[:, :9])
    assert found.equal(index[:, :9])


@pytest.mark.parametrize(("query_chunk", "key_chunk"), [(1, 1), (7, 11), (512, 3)])
def test_chunks_change_nothing(query_chunk: int, key_chunk: int) -> None:
    torch.manual_seed(1)
    queries, keys = torch.randn(20, 6), torch.randn(37, 6)
    whole = neighbours(queries, keys, 12)
    similarity, index = neighbours(queries, keys, 12, query_chunk=query_chunk, key_chunk=key_chunk)
    torch.testing.assert_close(similarity, whole[0])
    assert index.equal(whole[1])


def test_length_does_not_matter() -> None:
    torch.manual_seed(2)
    queries, keys = torch.randn(20, 6), torch.randn(37, 6)
    index = neighbours(queries * torch.rand(20, 1), keys * (1 + 9 * torch.rand(37, 1)), 5)[1]
    assert index.equal(neighbours(queries, keys, 5)[1])


def test_a_row_finds_itself_and_zeros_find_nothing() -> None:
    z = torch.randn(10, 4)
    similarity, index = neighbours(z, z, 1)
    assert index[:, 0].tolist() == list(range(10))
    torch.testing.assert_close(similarity, torch.ones(10, 1))
    assert neighbours(torch.zeros(1, 4), z, 3)[0].tolist() == [[0.0, 0.0, 0.0]]


class LargestTensor(TorchDispatchMode):
    """Watches how many numbers any intermediate result holds."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


def test_no_matrix_of_all_pairs_exists() -> None:
    train_x, train_y, test_x = torch.randn(40_000, 8), torch.randint(10, (40_000,)), torch.randn(1500, 8)
    with LargestTensor() as largest:
        knn_predict(train_x, train_y, test_x)
    assert largest.numbers <= knn.QUERY_CHUNK * knn.KEY_CHUNK < len(train_x) * len(test_x) / 5


def test_digits_are_known_by_their_neighbours_and_shuffled_labels_are_not(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    assert knn_top1(train_x, train_y, test_x, test_y, k=5) > 0.97
    shuffled = train_y[torch.randperm(len(train_y), generator=torch.Generator().manual_seed(0))]
    assert 0.04 < knn_top1(train_x, shuffled, test_x, test_y, k=5) < 0.17


def test_fewer_rows_than_k_all_vote() -> None:
    x, y = torch.randn(3, 2), torch.tensor([0, 1, 1])
    assert knn_predict(x, y, x, k=200, temperature=100.0).tolist() == [1, 1, 1]


def test_mistakes_are_named() -> None:
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="k must be between 1 and the number of keys, 4; got 5"):
        neighbours(x, x, 5)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        knn_top1(x, y, x, y, temperature=0.0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_top1(x, y, x, y, k=0)
    with pytest.raises(ValueError, match="test: 2 of 4 labels are negative"):
        knn_top1(x, y, x, y - 1)
    with pytest.raises(ValueError, match="train: row 2 holds NaN"):
        knn_top1(torch.where(torch.arange(4)[:, None] == 2, torch.nan, x), y, x, y)
    with pytest.raises(ValueError, match="widths 3 and 2"):
        check_labelled(x, y, x[:, :2], y)
    with pytest.raises(ValueError, match="got 4 vectors and 3 labels"):
        check_labelled(x, y[:3], x, y)
    with pytest.raises(ValueError, match="got 0 vectors"):
        knn_top1(x, y, x[:0], y[:0])
