"""Logistic regression against scikit-learn's optimum, and what the probe does with classes and splits."""

import numpy as np
import pytest
import torch

from selfsup.evaluation.linear import held_out, linear_probe
from selfsup.evaluation.logistic import LogisticRegression, Scaling, logits_of


def penalty(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def objective(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, l2: float) -> float:
    """Mean cross entropy + l2/2 |W|^2, in loops."""
    total = 0.0
    for row, c in zip(x.double(), y, strict=True):
        scores = [float(row @ w[:-1, k] + w[-1, k]) for k in range(w.shape[1])]
        total += float(np.logaddexp.reduce(scores)) - scores[int(c)]
    return total / len(x) + 0.5 * l2 * float(w[:-1].square().sum())


@pytest.mark.parametrize(("rows", "width"), [(150, 6), (20, 50)])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_solution_is_that_of_scikit_learn(rows: int, width: int, l2: float) -> None:
    from sklearn.linear_model import LogisticRegression as Reference

    torch.manual_seed(0)
    y = torch.randint(3, (rows,))
    x = torch.randn(rows, width) + torch.randn(3, width)[y]
    x = x / x.norm(dim=1).mean() + 0.3  # not centred
    reference = Reference(C=1 / (rows * l2), tol=1e-8, max_iter=5000).fit(x.numpy().astype(np.float64), y.numpy())
    problem = LogisticRegression(x[None], y[None], 3)
    w = problem.weights(problem.solve(penalty(l2), tolerance=1e-6))[0, 0]
    expected = np.concatenate([reference.coef_, reference.intercept_[:, None]], axis=1).T
    assert objective(x, y, w, l2) < objective(x, y, torch.from_numpy(expected), l2) + 1e-6
    np.testing.assert_allclose(w[:-1], expected[:-1], atol=0.02 * np.abs(expected).max())
    p, q = logits_of(x[None], w[None, None])[0, 0].softmax(dim=1), reference.predict_proba(x.numpy())
    np.testing.assert_allclose(p, q, atol=2e-3)


def test_problems_solved_together_equal_those_solved_alone() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(2, 30, 4), torch.randint(3, (2, 30))
    rows = (torch.rand(2, 3, 30) > 0.3).float()
    l2 = torch.tensor([[1e-1, 1e-2, 1e-3], [1e-2, 1e-2, 1e-1]], dtype=torch.float64)
    together = LogisticRegression(x, y, 3, rows)
    w = together.weights(together.solve(l2, tolerance=1e-6))
    for s in range(2):
        for j in range(3):
            kept = rows[s, j] > 0
            alone = LogisticRegression(x[s : s + 1, kept], y[s : s + 1, kept], 3)
            found = alone.weights(alone.solve(l2[s : s + 1, j : j + 1], tolerance=1e-6))[0, 0]
            # A constant may move between the biases of all classes: compare what they predict.
            everything = torch.cat([x[s], torch.ones(30, 1)], dim=1).double()
            torch.testing.assert_close((everything @ w[s, j]).softmax(dim=1), (everything @ found).softmax(dim=1), atol=1e-3, rtol=0.0)


def test_a_start_changes_the_way_and_not_the_end() -> None:
    torch.manual_seed(2)
    x, y = torch.randn(1, 60, 5), torch.randint(2, (1, 60))
    problem = LogisticRegression(x, y, 2)
    cold = problem.solve(penalty(1e-2), tolerance=1e-7)
    warm = problem.solve(penalty(1e-2), tolerance=1e-7, start=problem.solve(penalty(1.0)))
    torch.testing.assert_close(warm[:, :, :-1], cold[:, :, :-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(problem.solve(penalty(1e-2), start=cold, iterations=0), cold)


def test_scaling_ignores_rotation_and_unit_and_knows_only_the_training_rows() -> None:
    torch.manual_seed(3)
    x, rotation = torch.randn(50, 6) * torch.arange(1.0, 7.0), torch.linalg.qr(torch.randn(6, 6)).Q
    z, turned = Scaling(x)(x), Scaling(5 * x @ rotation + 3)(5 * x @ rotation + 3)
    torch.testing.assert_close(z @ rotation, turned, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(z.square().sum(dim=1).mean(), torch.tensor(1.0))
    assert Scaling(torch.ones(4, 2))(torch.ones(4, 2)).abs().max() == 0


def test_probe_reads_digits_and_not_shuffled_labels(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    found = linear_probe(train_x, train_y, test_x, test_y)
    assert found.top1 > 0.95
    assert found == linear_probe(train_x, train_y, test_x, test_y)  # deterministic
    shuffled = train_y[torch.randperm(len(train_y), generator=torch.Generator().manual_seed(0))]
    assert 0.04 < linear_probe(train_x, shuffled, test_x, test_y).top1 < 0.17


def test_penalty_is_chosen_without_the_test_labels(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    honest = linear_probe(train_x, train_y, test_x, test_y)
    wrong = linear_probe(train_x, train_y, test_x, (test_y + 1) % 10)
    assert wrong.weight_decay == honest.weight_decay
    assert wrong.top1 < 0.05


def test_noise_asks_for_a_stronger_penalty_than_signal() -> None:
    torch.manual_seed(4)
    y, other = torch.arange(400) % 2, torch.randint(2, (400,))
    x = torch.randn(400, 40)
    signal = x + 3 * (y[:, None] - 0.5)
    faint = x + 0.1 * (y[:, None] - 0.5)
    assert linear_probe(faint, other, faint, other).weight_decay > linear_probe(signal, y, signal, y).weight_decay / 10
    grid = (1e-1, 1e-6)
    assert linear_probe(faint[:100], y[:100], faint[100:], y[100:], grid=grid).weight_decay == 1e-1


def test_absent_and_lonely_classes(pixels: tuple) -> None:
    train_x, train_y, test_x, test_y = pixels
    few = torch.cat([(train_y == c).nonzero()[: 1 if c == 7 else 30, 0] for c in (2, 5, 7)])
    shown = (test_y == 2) | (test_y == 5)
    found = linear_probe(train_x[few], train_y[few], test_x[shown], test_y[shown])
    assert found.top1 > 0.9
    absent = test_y == 3  # never seen in training: all wrong, no crash
    assert linear_probe(train_x[few], train_y[few], test_x[absent], test_y[absent]).top1 == 0
    one_each = torch.stack([(train_y == c).nonzero()[0, 0] for c in range(10)])  # nothing to hold out
    assert linear_probe(train_x[one_each], train_y[one_each], test_x, test_y).top1 > 0.4


def test_held_out_rows_are_a_fifth_of_each_class() -> None:
    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    held = held_out(y, 0.2, seed=0)
    assert [int(held[y == c].sum()) for c in range(4)] == [10, 2, 1, 0]
    assert held.equal(held_out(y, 0.2, seed=0))
    assert not held.equal(held_out(y, 0.2, seed=1))


def test_mistakes_are_named() -> None:
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="grid must hold penalties above 0"):
        linear_probe(x, y, x, y, grid=())
    with pytest.raises(ValueError, match="grid must hold penalties above 0"):
        linear_probe(x, y, x, y, grid=(1.0, 0.0))
    with pytest.raises(ValueError, match="train: 4 of 4 labels are negative"):
        linear_probe(x, -y - 1, x, y)
