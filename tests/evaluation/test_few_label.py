"""Few-label curve: intervals by hand, draws, and what it must and must not depend on."""

import pytest
import torch

from selfsup.evaluation.few_label import (
    Interval,
    few_label,
    fit_heads,
    interval,
    labelled_rows,
    left_out,
    t_quantile,
    usable_counts,
    wilson,
)


@pytest.mark.parametrize(
    ("level", "freedom", "expected"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.3027),
        (0.95, 4, 2.7764),
        (0.95, 9, 2.2622),
        (0.99, 4, 4.6041),
        (0.9, 7, 1.8946),
        (0.95, 1000, 1.9623),
    ],
)
def test_quantiles_are_those_of_the_tables(level: float, freedom: int, expected: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(expected, abs=1e-4)


def test_interval_is_the_known_one() -> None:
    # mean 0.8, s = 0.01 * sqrt(2.5), half width = 2.7764 * s / sqrt(5)
    found = interval([0.78, 0.79, 0.80, 0.81, 0.82])
    assert found == pytest.approx((0.8, 0.8 - 0.019632, 0.8 + 0.019632), abs=1e-6)
    assert interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5)
    assert interval([0.99, 1.0, 1.0]).high == 1.0  # an accuracy is not above 1
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        interval([0.5])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draws = 0.5 + 0.05 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    held = [low <= 0.5 <= high for _, low, high in (interval(row) for row in draws.tolist())]
    assert 0.935 < sum(held) / len(held) < 0.965


def test_draws_are_nested_and_even_and_differ_by_seed() -> None:
    y = torch.arange(60) % 3
    five, ten = labelled_rows(y, 5, seed=1), labelled_rows(y, 10, seed=1)
    assert y[ten].bincount().tolist() == [10, 10, 10]
    assert set(five.tolist()) < set(ten.tolist())
    assert set(ten.tolist()) != set(labelled_rows(y, 10, seed=2).tolist())
    assert len(set(ten.tolist())) == 30


def test_counts_above_the_smallest_class_are_left_out_and_say_why() -> None:
    y = torch.tensor([0] * 30 + [2] * 7)
    assert usable_counts(y, (1, 5, 7, 10, 50)) == [1, 5, 7]
    assert left_out(y, (1, 10, 50), ("cat", "dog", "owl")) == {
        "10": 'class "owl" has only 7 labelled training items',
        "50": 'class "owl" has only 7 labelled training items',
    }
    assert left_out(y, (1, 7)) == {}


def test_more_labels_read_digits_better_and_shuffled_labels_are_chance(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    curve = few_label(train_x, train_y, test_x, test_y, counts=(1, 5, 50), seeds=3)
    assert list(curve) == ["1", "5", "50"]
    assert 0.4 < curve["1"].mean < curve["5"].mean - 0.1 < curve["50"].mean - 0.1
    assert curve["50"].mean > 0.93
    assert all(low < mean < high for mean, low, high in curve.values())
    shuffled = train_y[torch.randperm(len(train_y), generator=torch.Generator().manual_seed(0))]
    assert 0.05 < few_label(train_x, shuffled, test_x, test_y, counts=(20,), seeds=3)["20"].mean < 0.16


def test_it_uses_only_the_drawn_labels(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    drawn = torch.cat([labelled_rows(train_y, 5, seed) for seed in range(2)])
    others = torch.ones(len(train_y), dtype=torch.bool)
    others[drawn] = False
    # Test labels permuted among classes: the same classifier, other figures.
    right = few_label(train_x, train_y, test_x, test_y, counts=(5,), seeds=2)["5"]
    wrong = few_label(train_x, train_y, test_x, (test_y + 1) % 10, counts=(5,), seeds=2)["5"]
    assert right.mean > 0.75
    assert wrong.mean < 0.08


def test_vectors_may_be_turned_moved_and_scaled(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    plain = few_label(train_x, train_y, test_x, test_y, counts=(2, 10), seeds=2)
    turned = few_label(100 * train_x @ rotation + 7, train_y, 100 * test_x @ rotation + 7, test_y, counts=(2, 10), seeds=2)
    for count in plain:
        assert turned[count].mean == pytest.approx(plain[count].mean, abs=0.004)


def test_a_penalty_is_found_for_vectors_that_need_a_strong_one() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 2
    x = torch.randn(600, 200, generator=generator) + 0.12 * (2 * y[:, None] - 1)  # every dimension says little
    found = few_label(x[:300], y[:300], x[300:], y[300:], counts=(50,), seeds=3)["50"].mean
    mean = torch.stack([x[:300][y[:300] == c].mean(dim=0) for c in range(2)])
    best = float(((x[300:] @ (mean[1] - mean[0]) > 0) == y[300:]).double().mean())  # all labels, the right model
    assert best - 0.12 < found


def test_classes_need_not_be_consecutive() -> None:
    generator = torch.Generator().manual_seed(0)
    y = 3 + 4 * (torch.arange(80) % 2)
    x = torch.randn(80, 3, generator=generator) + 5 * y[:, None]
    assert few_label(x, y, x, y, counts=(5,), seeds=2)["5"].mean > 0.95


def test_mistakes_are_named(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        few_label(train_x, train_y, test_x, test_y, seeds=1)
    with pytest.raises(ValueError, match="counts must hold numbers"):
        few_label(train_x, train_y, test_x, test_y, counts=(0, 5))
    with pytest.raises(ValueError, match="0 < level < 1"):
        t_quantile(1.0, 4)


def test_wilsons_interval_is_the_known_one() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, method 3
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson(right, n) == pytest.approx((right / n, low, high), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1.0, 1 - 0.1611, 1.0), abs=5e-5)
    for right, n in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="needs n of at least 1"):
            wilson(right, n)


def test_heads_need_neither_order_nor_classes_of_one_size() -> None:
    y = torch.arange(70) % 10 % 7 % 3  # 28, 21 and 21 rows
    x = torch.randn(70, 4) + 2 * torch.eye(3, 4)[y]
    w = fit_heads(x[None], y[None], 3)
    # Sorted by class, the rows of a class keep their order: the folds, and so the penalty, are the same.
    order = y.argsort(stable=True)
    torch.testing.assert_close(fit_heads(x[order][None], y[order][None], 3), w, atol=1e-3, rtol=1e-3)
    right = ((x @ w[0, 0, :-1].float() + w[0, 0, -1].float()).argmax(dim=1) == y).float().mean()
    assert right > 0.75
