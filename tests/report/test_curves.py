"""Curves keep what was measured: means, extremes and gaps survive thinning, and resumed steps count once."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from selfsup.report.curves import KNOWN, POINTS, curves, thin, trained, warnings
from selfsup.report.run_contents import read_run


@pytest.mark.parametrize("length", [1, 2, 49, 50, 51, 333, 700])
@pytest.mark.parametrize("gaps", [0.0, 0.3, 0.97, 1.0])
def test_thinning_keeps_extremes_order_and_gaps(length: int, gaps: float) -> None:
    draw = np.random.default_rng(length)
    values = [None if draw.random() < gaps else float(draw.normal()) for _ in range(length)]
    short = thin([10 * i for i in range(length)], values, 50)
    assert len(short["x"]) == len(short["y"]) == len(short["low"]) == len(short["high"]) == min(50, length)
    assert short["x"] == sorted(short["x"])
    for stretch, y, low, high in zip(
        np.array_split(np.arange(length), min(50, length)), short["y"], short["low"], short["high"], strict=True
    ):
        known = [values[i] for i in stretch if values[i] is not None]
        if known:
            assert (y, low, high) == pytest.approx((sum(known) / len(known), min(known), max(known)), rel=1e-4, abs=1e-9)
        else:
            assert (y, low, high) == (None, None, None)


def test_one_spike_in_thousands_of_lines_is_still_there() -> None:
    values = np.sin(np.arange(16 * POINTS) / 700)
    values[3333] = 40
    short = thin([float(i) for i in range(16 * POINTS)], values.tolist())
    assert len(short["y"]) == POINTS
    assert max(short["high"]) == 40
    assert short["x"][int(np.argmax(short["high"]))] == pytest.approx(3333, abs=16)
    assert np.mean(short["y"]) == pytest.approx(values.mean(), abs=1e-4)


def run_of(folder: Path, *lines: dict | str) -> Path:
    (folder / "config.json").write_text("{}")
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metrics.jsonl").write_text("\n".join(text))
    return folder


def test_steps_that_a_resumed_run_makes_again_count_once(tmp_path: Path) -> None:
    first = [{"step": step, "loss": 1.0, "images": step, "seconds": step} for step in (10, 20, 30, 40)]
    again = [{"step": step, "loss": 2.0, "images": step, "seconds": step} for step in (30, 40, 50)]
    run = read_run(run_of(tmp_path, *first, *again, '{"step": 60, "lo'))
    assert [(line["step"], line["loss"]) for line in run.metrics] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]
    assert run.missing["metrics.jsonl"] == "1 of its lines cannot be read and were left out"
    assert trained(run) == {"step": 50.0, "images": 50.0, "seconds": 50.0, "rate": 1.0}


def test_values_that_are_not_finite_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": "nan"},
        '{"step": 3, "loss": NaN}',
        '{"step": 4, "loss": 1e999}',
        {"step": 5, "loss": 2},
    ]
    drawn, _ = curves(read_run(run_of(tmp_path, *lines)))
    assert drawn[0]["y"] == [3.0, None, None, None, 2.0]
    assert drawn[0]["meaning"].endswith("3 of 5 values are not finite and leave gaps.")
    assert math.isfinite(json.loads(json.dumps(drawn[0]["y"]))[0])


def test_known_curves_come_first_and_a_methods_own_follow(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "images": 8, "seconds": 1, "d_loss": 1, "zeta": 2, "knn_top1": 0.5, "lr": 1, "loss": 1, "note": "text", "ok": True}
    ]
    drawn, left_out = curves(read_run(run_of(tmp_path, *lines)))
    assert [curve["key"] for curve in drawn] == ["loss", "lr", "knn_top1", "d_loss", "zeta"]
    assert [curve["title"] for curve in drawn][-2:] == ["D loss", "Zeta"]
    assert left_out == []
    assert all(meaning.endswith(".") for _, _, meaning in KNOWN.values())


def test_the_same_warning_is_told_once(tmp_path: Path) -> None:
    lines = [{"step": 1, "warning": "a"}, {"step": 2, "warning": "b"}, {"step": 9, "warning": "a"}, {"step": 10, "warning": ""}]
    told = warnings(read_run(run_of(tmp_path, *lines)))
    assert told == [{"text": "a", "first": 1, "times": 2, "last": 9}, {"text": "b", "first": 2, "times": 1, "last": 2}]
