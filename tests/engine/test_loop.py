"""When the loop calls the monitor, by a clock of its own."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from selfsup.engine import loop
from selfsup.engine.loop import Training, fit
from selfsup.method import Batch, Method, Recipe


class Regression(Method):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def views(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch

    def loss(self, views: Batch) -> Tensor:
        return self.net(views["x"]).square().mean()


def watched(path: Path, monkeypatch: pytest.MonkeyPatch, monitor_seconds: float, **length: float) -> tuple[list[float], float]:
    """Each update takes a second: when monitors began, and how long the run took."""
    clock, begun = [100.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def batches(_step: int) -> Iterator[Batch]:
        while True:
            clock[0] += 1
            yield {"x": torch.ones(4, 3)}

    def monitor(_method: Method) -> dict[str, float]:
        begun.append(clock[0] - 100)
        clock[0] += monitor_seconds
        return {}

    training = Training(Recipe(optimizer="sgd", lr=1e-3, weight_decay=0.0), batch_size=4, **length)  # type: ignore[arg-type]
    fit(Regression(), training, path, batches=batches, device=torch.device("cpu"), monitor=monitor)
    return begun, clock[0] - 100


def test_a_run_of_steps_is_watched_at_every_tenth_whatever_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, took = watched(tmp_path, monkeypatch, 50.0, steps=40)
    assert begun == [4 * k + 50 * (k - 1) for k in range(1, 11)]
    assert took == 40 + 10 * 50


def test_a_budget_of_time_is_kept_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap, took = watched(tmp_path, monkeypatch, 1.0, minutes=2.0)
    assert len(cheap) == 10
    assert took == 121  # the last one comes when time is up
    (tmp_path / "dear").mkdir()
    dear, took = watched(tmp_path / "dear", monkeypatch, 10.0, minutes=2.0)
    assert dear == [12, 60, 108, 120]  # 10 s are more than a fifth of 48, 20 s of 96
    assert took == 130
