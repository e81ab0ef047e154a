"""Warnings: said of what is broken, with its cause, and of nothing else."""

import math

import pytest
import torch

from selfsup.evaluation.collapse import Compared, collapse_warning, compared_warning
from selfsup.evaluation.measures import deviation, rankme

HEALTHY = Compared(rankme=20.0, deviation=0.6, size=1.0, width=128, matched=4.0, mismatched=8.0)


def test_healthy_embeddings_raise_no_alarm() -> None:
    torch.manual_seed(4)
    for width, rows in ((2, 100), (128, 512), (2048, 512)):
        z = torch.randn(rows, width).relu()  # with a large common mean, as after a ReLU
        assert collapse_warning(rankme(z), deviation(z), width, rows=rows) is None


def test_collapses_are_told_apart() -> None:
    torch.manual_seed(5)
    point = torch.ones(256, 64) + 1e-4 * torch.randn(256, 64)
    assert "complete collapse" in str(collapse_warning(rankme(point), deviation(point), 64))
    line = torch.randn(256, 1) @ torch.randn(1, 64)
    assert "use less than 2% of 64 directions" in str(collapse_warning(rankme(line), deviation(line), 64))
    assert "diverged" in str(collapse_warning(math.nan, 0.5, 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"matched": 7.56, "mismatched": 7.64}, None),  # dino, healthy
        ({"matched": -0.80, "mismatched": -0.66, "rankme": 4.2, "width": 512}, None),  # simsiam, healthy
        ({"matched": None, "mismatched": None}, None),
        ({"rankme": 1.3}, "hardly more than one of 128 directions"),
        ({"rankme": 1.6, "width": 2}, None),  # of two directions that is a lot
        ({"deviation": 0.03}, "collapsing"),
        ({"size": 400.0}, "the learning rate is far too high"),
        ({"matched": 8.3126, "mismatched": 8.3165}, "temperature far too high"),
        ({"matched": 3e-4, "mismatched": 4e-4}, "embeddings that have collapsed"),
        ({"matched": 5.0, "mismatched": 4.0}, "embeddings that have collapsed"),
        ({"matched": math.nan}, "diverged"),
    ],
)
def test_what_the_loss_compares(change: dict[str, float], said: str | None) -> None:
    found = compared_warning(HEALTHY._replace(**change))
    assert found is None if said is None else said in str(found)
