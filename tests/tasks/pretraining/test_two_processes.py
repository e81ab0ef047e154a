"""Two processes with half of the batch each are one process with the whole batch, from the data's order to the last weight."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup import report
from selfsup.engine import loop
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved
from selfsup.methods import METHODS
from selfsup.tasks.pretraining.pretrain import pretrain

STEPS = 4
# Learning rates where the loss is a large sum, and so is its gradient, or where many rectifiers are near their edge.
SMALL_STEPS = {"barlow_twins": 1e-5, "vicreg": 1e-4, "jigsaw": 2e-4, "simclr": 5e-4}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8))
    return path


def command(method: str, data: Path | str, run: Path, devices: int, steps: int = STEPS, *more: str) -> list[str]:
    # Plain gradient descent in small steps: the root of a square that adamw divides by, and large steps, both magnify rounding.
    size = ["--batch-size", "16", "--steps", str(steps), "--precision", "fp32", "--optimizer", "sgd"]
    size += ["--lr", str(SMALL_STEPS.get(method, 2e-3))]
    where = [str(data), "--out", str(run), "--devices", str(devices), "--quiet"]
    return [sys.executable, "-m", "selfsup", "pretrain", method, *where, *size, *more]


def logged(run: Path) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in logged(run)]


CASES = [(method, {}) for method in METHODS if method not in ("gan", "simcse")]  # each process draws noise of its own for them
CASES += [("simcse", {"dropout": 0.0}), ("consert", {"first": "adversarial", "second": "token_cutoff"})]
CASES += [("instance_discrimination", {"dictionary": name}) for name in ("bank", "queue")]  # beside its default, the batch
CASES += [("rotation", {"target": "circle"})]


# Starting a process costs more than training here, so one pair trains for all methods.
ONE_OF_TWO = """
import json, sys
from selfsup import report
from selfsup.engine import loop
from selfsup.tasks.pretraining.pretrain import pretrain
loop.MONITORS_A_RUN = 1
report.write_report = lambda run: run
for line in sys.stdin:
    try:
        pretrain(quiet=True, **json.loads(line))
        print("done", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


@pytest.fixture(scope="module")
def both() -> Iterator[Callable[..., None]]:
    """`pretrain` in two processes that torchrun could have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        pair.append(subprocess.Popen([sys.executable, "-c", ONE_OF_TWO], env=os.environ | place, **streams))

    def train(**settings: Any) -> None:
        for process in pair:
            process.stdin.write(json.dumps(settings, default=str) + "\n")
            process.stdin.flush()
        assert [process.stdout.readline().strip() for process in pair] == ["done", "done"]

    yield train
    for process in pair:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("method", "options"), CASES)
def test_two_processes_equal_one(
    method: str, options: dict[str, Any], both: Any, material: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MONITORS_A_RUN", 1)  # they and the page take longer than so short a training
    monkeypatch.setattr(report, "write_report", lambda run: run)
    data, fitting = material(method)
    settings = {"batch_size": 16, "steps": STEPS, "precision": "fp32", "optimizer": "sgd", "lr": SMALL_STEPS.get(method, 2e-3)}
    settings |= {**options, **fitting}
    pretrain(data, method, out=tmp_path / "1", quiet=True, **settings)
    both(data=data, method=method, out=tmp_path / "2", **settings)
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-5, atol=1e-6)
    bounds = [[line.get("information", 0.0) for line in logged(tmp_path / n)] for n in ("1", "2")]
    np.testing.assert_allclose(*bounds, rtol=1e-4, atol=1e-5)
    one, two = (load_tensors(checkpoint_path(tmp_path / str(n) / "checkpoints", STEPS), "model") for n in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_killed_process_is_survived(images: Path, both: Any, tmp_path: Path) -> None:
    """The supervisor ends the other one, starts both again from the newest checkpoint, and the weights are those of an undisturbed run."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    both(data=images, method="moco", out=whole, batch_size=16, steps=12, precision="fp32", optimizer="sgd", lr=2e-3)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    often = ("--checkpoint-minutes", "0.0000001")
    with subprocess.Popen(command("moco", images, broken, 2, 12, *often), **streams) as supervisor:  # type: ignore[call-overload]
        while len(steps_saved(broken / "checkpoints")) < 2:
            assert supervisor.poll() is None
            time.sleep(0.005)
        os.kill(_workers_of(supervisor.pid)[-1], signal.SIGKILL)
        said, errors = supervisor.communicate(timeout=120)
    assert supervisor.returncode == 0, errors
    assert said == f"{broken}\n"
    assert "starting all again from the newest checkpoint" in errors
    assert losses(broken) == losses(whole)
    assert (whole / "encoder/model.safetensors").read_bytes() == (broken / "encoder/model.safetensors").read_bytes()


def _workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children if b"--resume" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 2
    return found
