"""The kernel of word2vec: its steps are autograd's gradients, and what it draws follows the stated distributions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.methods.word2vec import ENDS, alias_table, chances_to_stay, huffman
from selfsup.models.word_kernel import draw_examples, keep_words, learn, sigmoids
from selfsup.models.word_table import flat, new_table

V, WIDTH = 7, 20
NO_TREE = (np.zeros((V, 0), np.int32), np.zeros((V, 0), np.int8))
WORDS = np.array([2, 4, 1, 4, 6, 3], np.int32)


def tables(seed: int = 0) -> tuple[Tensor, Tensor]:
    made = new_table(V, WIDTH), new_table(V, WIDTH)
    for table in made:
        table.copy_(torch.randn(V, WIDTH, generator=torch.Generator().manual_seed(seed)))
        seed += 1
    return made


def stepped(examples: list[list[int]], lr: float, tree: Any = NO_TREE) -> tuple[float, Tensor, Tensor]:
    inputs, outputs = tables()
    where = (flat(inputs), flat(outputs), inputs.stride(0))
    loss = learn(np.array(examples, np.int32), WORDS, *where, *tree, np.float32(lr))
    assert bool((torch.from_numpy(where[0]).reshape(V, -1)[:, WIDTH:] == 0).all())  # what pads a row stays empty
    return loss, inputs, outputs


def by_autograd(first: int, last: int, left_out: int, asked: list[tuple[int, int]], lr: float) -> tuple[float, Tensor, Tensor]:
    """One example in float64: the loss is the paper's, equation 4 of 1310.4546 (or 3), and `asked` its outputs with their signs."""
    inputs, outputs = (table.double().requires_grad_() for table in tables())
    shown = [int(WORDS[i]) for i in range(first, last) if i != left_out]
    h = inputs[shown].mean(dim=0)
    loss = -sum(F.logsigmoid(sign * (outputs[row] @ h)) for row, sign in asked)
    loss.backward()
    with torch.no_grad():
        return float(loss), inputs - lr * len(shown) * inputs.grad, outputs - lr * outputs.grad  # every shown word takes the whole step


@pytest.mark.parametrize(
    ("first", "last", "left_out", "noise"),
    [(1, 2, -1, [5, 2, 3]), (1, 2, -1, [5, 5, 3]), (0, 5, 2, [5, -1, 3]), (0, 5, 2, [0, 0, 0])],  # a word twice; a word that is hidden
)
def test_a_step_of_negative_sampling_is_the_gradient(first: int, last: int, left_out: int, noise: list[int]) -> None:
    target, lr = 1, 0.5
    loss, *after = stepped([[first, last, left_out, target, *noise]], lr)
    expected, *there = by_autograd(first, last, left_out, [(target, 1), *((word, -1) for word in noise if word >= 0)], lr)
    assert loss == pytest.approx(expected, rel=1e-6)
    for mine, theirs in zip(after, there, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-6)


def test_a_step_of_hierarchical_softmax_is_the_gradient() -> None:
    tree = huffman(np.array([9, 1, 7, 3, 3, 2, 5]))
    asked = [(int(node), int(turn)) for node, turn in zip(tree[0][1], tree[1][1], strict=True) if node >= 0]
    assert len(asked) > 2
    for first, last, left_out in ((1, 2, -1), (0, 6, 2)):
        loss, *after = stepped([[first, last, left_out, 1]], 0.5, tree)
        expected, *there = by_autograd(first, last, left_out, asked, 0.5)
        assert loss == pytest.approx(expected, rel=1e-6)
        for mine, theirs in zip(after, there, strict=True):
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-6)


def test_examples_are_learned_one_after_the_other() -> None:
    one, two = [1, 2, -1, 1, 5, 2], [3, 4, -1, 6, 5, 0]
    inputs, outputs = tables()
    losses = 0.0
    for example in (one, two):
        losses += learn(np.array([example], np.int32), WORDS, flat(inputs), flat(outputs), 32, *NO_TREE, np.float32(0.3))
    loss, *after = stepped([one, two], 0.3)
    assert loss == pytest.approx(losses, rel=1e-6)
    assert torch.equal(after[0], inputs)
    assert torch.equal(after[1], outputs)


def test_sigmoids_have_seven_digits() -> None:
    x = np.linspace(-50, 50, 4096, dtype=np.float32)
    right, wrong = np.empty_like(x), np.empty_like(x)
    sigmoids(x, right, wrong)
    exact = torch.from_numpy(x).double()
    for mine, theirs in ((right, torch.sigmoid(exact)), (wrong, torch.sigmoid(-exact))):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=5e-7)


def test_the_tree_gives_every_word_a_probability_and_they_sum_to_one() -> None:
    counts = np.array([0, 9, 1, 7, 3, 3, 2, 5, 0, 40])
    paths, signs = huffman(counts)
    outputs, h = torch.randn(10, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    node, sign = torch.from_numpy(paths).long(), torch.from_numpy(signs).double()
    p = torch.where(node >= 0, torch.sigmoid(sign * (outputs[node] @ h)), 1.0).prod(dim=1)
    assert float(p[counts > 0].sum()) == pytest.approx(1, abs=1e-12)
    assert (paths[counts == 0] == -1).all()
    assert len({int(way[0]) for way in paths[counts > 0]}) == 1  # all begin at the root
    assert paths.max() == (counts > 0).sum() - 2  # as many inner nodes as words, less one


def test_the_codes_are_huffmans() -> None:
    paths, signs = huffman(np.array([1, 2, 1, 4]))
    lengths = (paths >= 0).sum(axis=1)
    assert lengths.tolist() == [3, 2, 3, 1]  # by hand
    counts = np.random.default_rng(0).integers(1, 1000, 50)
    paths, signs = huffman(counts)
    codes = [tuple(s[s != 0].tolist()) for s in signs]
    assert all(a[: len(b)] != b for a in codes for b in codes if a is not b)  # none begins another
    least, left = 0, sorted(counts.tolist())
    while len(left) > 1:  # the least sum of lengths is that of all merges, whatever the order among equals
        merged = left.pop(0) + left.pop(0)
        least, left = least + merged, sorted([*left, merged])
    assert int((counts * (paths >= 0).sum(axis=1)).sum()) == least


def test_the_alias_table_has_the_weights_exactly() -> None:
    weights = np.random.default_rng(0).integers(0, 1000, 300).astype(float) ** 0.75
    table = alias_table(weights)
    own = table[:, 0] / 2.0**32
    share = own + np.bincount(table[:, 1], 1 - own, minlength=300)
    np.testing.assert_allclose(share / 300, weights / weights.sum(), atol=1e-9)
    assert (table[weights == 0, 0] == 0).all()


def kept(row: list[int], keep: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    words, begins, ends = np.empty((3, len(row)), np.int32)
    n, _ = keep_words(np.array(row), keep, np.uint64(seed), words, begins, ends)
    return [words[:n], begins[:n], ends[:n]]


def test_frequent_words_are_left_out_at_the_stated_rate() -> None:
    counts = np.array([0, 600, 300, 99, 1])
    keep = chances_to_stay(counts, 0.01)
    ratio = 0.01 / (counts[1:] / 1000)
    expected = np.minimum(1, np.sqrt(ratio) + ratio)
    n = 200_000
    for word, p in enumerate(expected, 1):
        found = len(kept([word] * n, keep)[0]) / n
        assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / n), word
    assert expected[3] == 1
    assert len(kept([0] * 100, keep)[0]) == 0  # an unknown word
    assert len(kept([1] * 100, chances_to_stay(counts, 0.0))[0]) == 100


def test_sentences_end_where_they_end() -> None:
    keep = np.array([ENDS, 0, 1 << 32, 1 << 32, 1 << 32], np.uint64)
    words, begins, ends = kept([2, 1, 3, 0, 0, 4, 0, 2, 2, 2], keep)  # 1 is unknown: its neighbours become each other's
    assert words.tolist() == [2, 3, 4, 2, 2, 2]
    assert begins.tolist() == [0, 0, 2, 3, 3, 3]
    assert ends.tolist() == [2, 2, 3, 6, 6, 6]


def drawn(words: np.ndarray, begins: np.ndarray, ends: np.ndarray, *, cbow: bool, window: int, noise: np.ndarray, k: int = 1) -> np.ndarray:
    examples = np.empty((2 * window * len(words), 4 + k), np.int32)
    n, _ = draw_examples(words, begins, ends, 0, len(words), np.uint64(5), window, cbow, noise, k, examples)
    return examples[:n]


@pytest.mark.parametrize("cbow", [False, True])
def test_windows_stay_in_their_sentence_and_each_size_is_as_likely(cbow: bool) -> None:
    sentences, window = 20_000, 3
    lengths = np.random.default_rng(0).integers(1, 10, sentences)
    ends = np.repeat(np.cumsum(lengths), lengths).astype(np.int32)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths).astype(np.int32)
    words = np.arange(len(ends), dtype=np.int32)  # every word is its own place
    found = drawn(words, begins, ends, cbow=cbow, window=window, noise=alias_table(np.ones(len(words))))
    first, last, left_out, target = found[:, :4].T
    if cbow:
        assert (left_out == target).all()
        assert ((first >= begins[target]) & (last <= ends[target]) & (last - first > 1)).all()
        pairs = {d: ((target + d < last) & (target + d < ends[target])).sum() for d in (1, 2, 3)}
    else:
        assert ((last == first + 1) & (left_out == -1)).all()
        assert (begins[first] == begins[target]).all()
        assert (first != target).all()
        pairs = {d: (target - first == d).sum() for d in (1, 2, 3)}
    for d, n in pairs.items():
        there = int((words + d < ends).sum())  # pairs of words at this distance
        p = (window - d + 1) / window
        assert abs(n / there - p) <= 4 * math.sqrt(p * (1 - p) / there + 1e-12), d


def test_noise_is_drawn_by_counts_to_the_power_of_three_quarters() -> None:
    counts = np.array([0, 1, 16, 81, 10_000])
    n = 40_000
    words, begins, ends = np.full(n, 3, np.int32), np.zeros(n, np.int32), np.full(n, n, np.int32)
    found = drawn(words, begins, ends, cbow=True, window=1, noise=alias_table(counts**0.75 * (counts > 0)), k=5)[:, 4:]
    p = np.array([0, 1, 8, 27, 1000]) / 1036  # by hand
    p[3] = 0  # the hidden word is not its own noise
    p = np.append(p, 27 / 1036)
    seen = np.bincount(np.where(found < 0, 5, found).reshape(-1), minlength=6) / found.size
    assert (np.abs(seen - p) <= 4 * np.sqrt(p * (1 - p) / found.size)).all(), seen
