"""Rows of tables: missing values in the encoder, and the cost of a wrong guess, column by column."""

import math

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.mlp import MLP
from selfsup.models.table import Table, as_mean, columns_of, filled, known_values, row_error

BLOCKS = ((1, 4), (5, 8))  # number, category of one level, number, category of one level
NAN = float("nan")
TRUTH = torch.tensor(
    [
        [0.5, 1, 0, 0, -1.0, 0, 1, 0],
        [NAN, 0, 0, 1, 2.0, 1, 0, 0],
        [1.5, 0, 1, 0, NAN, 0, 0, 1],
    ],
    dtype=torch.float64,
)


def test_columns_of_places() -> None:
    assert columns_of(8, BLOCKS).tolist() == [0, 1, 1, 1, 2, 3, 3, 3]
    assert columns_of(3, ()).tolist() == [0, 1, 2]
    for wrong in (((1, 4), (3, 6)), ((5, 8), (1, 4)), ((5, 9),), ((2, 2),)):
        with pytest.raises(ValueError, match="ascending ranges within 0 to 8"):
            columns_of(8, wrong)


def test_errors_are_squares_of_numbers_and_cross_entropies_of_categories() -> None:
    torch.manual_seed(0)
    predicted = torch.randn(3, 8, dtype=torch.float64)
    known = known_values(TRUTH, BLOCKS)
    error = row_error(predicted, TRUTH, known, BLOCKS)
    total, count = 0.0, 0
    for i in range(3):
        for start, stop in ((0, 1), (1, 4), (4, 5), (5, 8)):
            truth, guess = TRUTH[i, start:stop].tolist(), predicted[i, start:stop].tolist()
            if stop - start == 1:
                missing, cost = math.isnan(truth[0]), (guess[0] - truth[0]) ** 2
            else:
                missing = truth[-1] == 1
                cost = math.log(sum(math.exp(g) for g in guess)) - guess[truth.index(1)]
            found = float(error[i, start:stop].sum())
            assert found == pytest.approx(0 if missing else cost, abs=1e-9)
            total += 0 if missing else cost
            count += not missing
    assert int(known.sum()) == count == 8
    assert float(as_mean(error, known).mean()) == pytest.approx(total / count, abs=1e-9)


def test_missing_values_send_no_gradient() -> None:
    predicted = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    known = known_values(TRUTH, BLOCKS)
    row_error(predicted, TRUTH, known, BLOCKS).sum().backward()
    assert predicted.grad is not None
    missing = torch.zeros(3, 8, dtype=torch.bool)
    missing[1, :4] = missing[2, 4:] = True
    assert torch.equal(predicted.grad == 0, missing)
    assert predicted.grad.isfinite().all()


def test_without_categories_and_gaps_it_is_the_plain_squared_error() -> None:
    predicted, target = torch.randn(2, 5, 3)
    known = known_values(target, ())
    torch.testing.assert_close(
        as_mean(row_error(predicted, target, known, ()), known).mean(), torch.nn.functional.mse_loss(predicted, target)
    )


def test_probabilities_of_a_category_sum_to_one() -> None:
    x = filled(torch.randn(4, 8), BLOCKS)
    for start, stop in BLOCKS:
        torch.testing.assert_close(x[:, start:stop].sum(dim=1), torch.ones(4))
    raw = torch.randn(2, 8)
    assert torch.equal(filled(raw, BLOCKS)[:, [0, 4]], raw[:, [0, 4]])


def test_what_is_missing_is_the_mean_until_training_says_more() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("table", channels=3, image_size=0, mean=[1.0, -2.0, 5.0], std=[1.0, 3.0, 2.0]).eval()
    assert isinstance(encoder, Table)
    assert encoder.spec == {"name": "table", "channels": 3, "image_size": 0}
    x = torch.randn(6, 3)
    gaps, mean = x.clone(), x.clone()
    gaps[2:4, 1], mean[2:4, 1] = NAN, -2.0
    assert torch.equal(encoder(gaps), encoder(mean))
    encoder.train()(gaps).square().sum().backward()
    grad = encoder.net[0].weight.grad  # type: ignore[union-attr, index]
    assert grad[:, 4].abs().sum() > 0, "the column with gaps learns what a gap means"
    assert not grad[:, [3, 5]].any()
    assert MLP(channels=3)(gaps).isfinite().all(), "gaps do not break the other encoder of vectors"
