"""A run that is killed and resumed is the run that was never disturbed, bit for bit, for every method."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup import cli, report
from selfsup.data import open_data
from selfsup.engine import loop
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved
from selfsup.engine.loop import Stopped
from selfsup.locks import locked
from selfsup.method import Method
from selfsup.methods import METHODS
from selfsup.methods.simclr import SimCLR
from selfsup.tasks.pretraining.pretrain import pretrain

STEPS = 5  # four are an epoch, so that the order of the data turns over
EVERY_STEP = 1e-7  # minutes between checkpoints


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    return path


def trace(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


# Starting a process costs more than training here, so those that are to be killed are forked from one that has imported everything.
# They kill themselves while they write their third checkpoint.
FORKING = """
import json, os, signal, sys
from pathlib import Path
from selfsup.engine import checkpoint, loop
from selfsup.tasks.pretraining.pretrain import pretrain
loop.MONITORS_A_RUN = 2
whole, third = checkpoint.write_file, checkpoint.checkpoint_path(Path(), 3).name

def write_file(path, data):
    if third in path.parent.name:
        path.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, data)

checkpoint.write_file = write_file
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        pretrain(quiet=True, **json.loads(line))
        os._exit(0)
    print(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", FORKING], **streams) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_equals_undisturbed(
    method: str, forking: Any, material: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MONITORS_A_RUN", 2)  # they take longer than so short a training
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    data, settings = material(method, 40)
    settings |= {"data": data, "method": method, "batch_size": 10, "steps": STEPS}
    with monkeypatch.context() as once:
        once.setattr(report, "write_report", lambda run: run)  # the resumed run has a page
        pretrain(out=whole, quiet=True, **settings)
    forking.stdin.write(json.dumps({**settings, "out": str(broken), "checkpoint_minutes": EVERY_STEP}) + "\n")
    forking.stdin.flush()
    assert int(forking.stdout.readline()) == signal.SIGKILL
    assert steps_saved(broken / "checkpoints") == [1, 2]
    assert len(list((broken / "checkpoints").glob(".*.tmp"))) == 1, "not while it was writing"
    config = json.loads((broken / "config.json").read_text())
    config["training"]["checkpoint_minutes"] = 5.0  # a checkpoint takes longer than a step
    (broken / "config.json").write_text(json.dumps(config))
    pretrain(resume=broken, quiet=True)
    assert trace(broken) == trace(whole)
    assert [step for step, _ in trace(whole)] == list(range(1, STEPS + 1))
    for stem in ("model", "optimizer"):
        a, b = (load_tensors(checkpoint_path(run / "checkpoints", STEPS), stem) for run in (whole, broken))
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name].float().numpy(), b[name].float().numpy()), name
    assert (whole / "encoder/model.safetensors").read_bytes() == (broken / "encoder/model.safetensors").read_bytes()
    assert (broken / "report.html").is_file()


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    pretrain(images, "moco", out=whole, batch_size=10, steps=STEPS, checkpoint_minutes=EVERY_STEP, quiet=True)
    shutil.copytree(whole, damaged)
    shutil.rmtree(damaged / "encoder")
    newest = checkpoint_path(damaged / "checkpoints", STEPS)
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-5] ^= 4
    (newest / "model.safetensors").write_bytes(data)
    assert cli.run(["verify", str(damaged)]) == 4
    said = capsys.readouterr().err
    assert "tensor" in said
    assert "Traceback" not in said
    assert cli.run(["pretrain", "--resume", str(damaged)]) == 0
    said = capsys.readouterr().err
    assert "damaged" in said
    assert "using the checkpoint before it" in said
    assert trace(damaged) == trace(whole)
    assert (whole / "encoder/model.safetensors").read_bytes() == (damaged / "encoder/model.safetensors").read_bytes()


def test_items_that_python_opened_are_gone_on_with_and_others_are_refused(images: Path, tmp_path: Path) -> None:
    items = open_data(images)
    run = pretrain(items, "simclr", out=tmp_path / "run", batch_size=10, steps=2, quiet=True).path
    whole = load_tensors(checkpoint_path(run / "checkpoints", 2), "model")
    shutil.rmtree(checkpoint_path(run / "checkpoints", 2))
    with pytest.raises(ValueError, match=r"has changed since the run began \(was 40 items"):
        pretrain(items.subset(np.arange(20)), resume=run, quiet=True)
    pretrain(items, resume=run, quiet=True)
    again = load_tensors(checkpoint_path(run / "checkpoints", 2), "model")
    assert all(whole[name].equal(again[name]) for name in whole)


def test_a_run_that_another_process_trains_is_left_alone(images: Path, tmp_path: Path) -> None:
    run = pretrain(images, "rotation", out=tmp_path / "run", batch_size=10, steps=2, quiet=True).path
    shutil.rmtree(checkpoint_path(run / "checkpoints", 2))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with locked(run), pytest.raises(ValueError, match="another process is training it"):
        pretrain(resume=run, quiet=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    pretrain(resume=run, quiet=True)
    assert steps_saved(run / "checkpoints")[-1] == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_says_so(number: signal.Signals, status: int, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["pretrain", "rotation", str(images), "--out", str(run), "--batch-size", "10", "--steps", "20000", "--quiet"]
    with subprocess.Popen([sys.executable, "-m", "selfsup", *command], stderr=subprocess.PIPE, text=True) as process:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert steps_saved(run / "checkpoints")[-1] == trace(run)[-1][0]


def test_a_method_is_told_how_far_the_training_is(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each step, after a resume too; of a method that is not being trained it is at its end."""
    told: list[tuple[float, float]] = []

    def recording(self: SimCLR, progress: float) -> None:
        told.append((self.progress, progress))
        if len(told) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(SimCLR, "after_step", recording)
    with pytest.raises(Stopped):
        pretrain(images, "simclr", out=tmp_path / "run", batch_size=10, steps=4, quiet=True)
    assert told[:2] == [(0.0, 0.25), (0.25, 0.5)]
    pretrain(resume=tmp_path / "run", quiet=True)
    assert told[-2:] == [(0.5, 0.75), (0.75, 1.0)]
    assert Method.progress == 1.0
