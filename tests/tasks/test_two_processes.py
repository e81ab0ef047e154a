"""Two processes with half of the batch each are one process with the whole batch, from the data's order to the last weight."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved

STEPS = 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8))
    return path


def pretrain(method: str, images: Path, run: Path, devices: int, steps: int = STEPS, *more: str) -> list[str]:
    # Plain gradient descent in small steps: the root of a square that adamw divides by, and large steps, both magnify rounding.
    size = ["--batch-size", "16", "--steps", str(steps), "--precision", "fp32", "--optimizer", "sgd", "--lr", "0.002"]
    where = [str(images), "--out", str(run), "--devices", str(devices), "--quiet"]
    return [sys.executable, "-m", "selfsup", "pretrain", method, *where, *size, *more]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "method",
    [
        "simclr",
        "moco",
        "supcon",
        "cpc --version 1",
        "cpc",
        *(f"instance_discrimination --dictionary {dictionary} --noise 32" for dictionary in ("batch", "bank", "queue")),
    ],
)
def test_two_processes_equal_one(method: str, images: Path, tmp_path: Path) -> None:
    method, *options = method.split()
    for devices in (1, 2):
        run = tmp_path / str(devices)
        done = subprocess.run(pretrain(method, images, run, devices, STEPS, *options), check=True, capture_output=True, text=True)
        assert done.stdout == f"{run}\n"
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-5)
    one, two = (load_tensors(checkpoint_path(tmp_path / str(n) / "checkpoints", STEPS), "model") for n in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_killed_process_is_survived(images: Path, tmp_path: Path) -> None:
    """The supervisor ends the other one, starts both again from the newest checkpoint, and the weights are those of an undisturbed run."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("--checkpoint-minutes", "0.0000001")
    subprocess.run(pretrain("simclr", images, whole, 2, 30, *more), check=True, capture_output=True)
    with subprocess.Popen(pretrain("simclr", images, broken, 2, 30, *more), stderr=subprocess.PIPE, text=True) as supervisor:
        while len(steps_saved(broken / "checkpoints")) < 2:
            assert supervisor.poll() is None
            time.sleep(0.005)
        os.kill(_workers_of(supervisor.pid)[-1], signal.SIGKILL)
        _, errors = supervisor.communicate(timeout=120)
    assert supervisor.returncode == 0, errors
    assert "starting all again from the newest checkpoint" in errors
    assert losses(broken) == losses(whole)
    assert (whole / "encoder/model.safetensors").read_bytes() == (broken / "encoder/model.safetensors").read_bytes()


def _workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children if b"--resume" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 2
    return found
