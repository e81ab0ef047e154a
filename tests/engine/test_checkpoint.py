"""Stored tensors: exact, whole or refused, whatever is done to the files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from selfsup.engine.checkpoint import (
    DamagedError,
    checkpoint_path,
    load_tensors,
    prune,
    remove_leftovers,
    save_tensors,
    steps_saved,
    verify_folder,
)

TENSORS = {"model": {"weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7), "half": torch.ones(5, dtype=torch.bfloat16)}}


def saved(folder: Path) -> Path:
    save_tensors(folder, TENSORS, {"state": {"step": 3}}, {"README.md": "hello"})
    return folder


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    assert verify_folder(folder) == 3
    loaded = load_tensors(folder, "model")
    assert all(torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in TENSORS["model"].items())
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_no_flipped_bit_and_no_cut_is_loaded_silently(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    files = [path for path in sorted(folder.iterdir()) if path.name != "README.md"]
    draw = random.Random(0)
    for trial in range(300):
        path = draw.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        if trial % 10:
            bit = draw.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
        else:
            data = data[: draw.randrange(len(data))]
        path.write_bytes(data)
        same = path.name == "checksums.json" and _says_the_same(bytes(data), whole)
        if not same:
            with pytest.raises(DamagedError):
                verify_folder(folder)
        path.write_bytes(whole)
    assert verify_folder(folder) == 3


def _says_the_same(data: bytes, whole: bytes) -> bool:
    try:
        return json.loads(data) == json.loads(whole)  # a space that became a tab changes nothing
    except ValueError:
        return False


def test_the_damaged_tensor_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor(5.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match='tensor "weight" differs'):
        verify_folder(folder)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "a")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(folder, {"model": {"weight": torch.zeros(3)}}, {})
    monkeypatch.undo()
    assert verify_folder(folder) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


KILLED = """
import sys, torch
from pathlib import Path
from selfsup.engine.checkpoint import checkpoint_path, save_tensors, prune
checkpoints = Path(sys.argv[1])
for step in range(1, 100000):
    save_tensors(checkpoint_path(checkpoints, step), {"model": {"w": torch.full((200_000,), float(step))}}, {"state": {"step": step}})
    prune(checkpoints, keep=set())
    print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for trial in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(checkpoints)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3):
                last = int(writer.stdout.readline())
            time.sleep(0.004 * trial)
            writer.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in writer.stdout.read().split())])
        remove_leftovers(checkpoints)
        newest = steps_saved(checkpoints)[-1]
        assert newest >= last
        verify_folder(checkpoint_path(checkpoints, newest))
        assert not list(checkpoints.glob(".*"))
        shutil.rmtree(checkpoints)
        checkpoints.mkdir()


def test_pruning_keeps_the_newest_and_the_marked(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        saved(checkpoint_path(tmp_path, step))
    prune(tmp_path, keep={10})
    assert steps_saved(tmp_path) == [10, 30, 40]


def test_a_replacement_that_was_killed_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    saved(tmp_path / "encoder")
    (tmp_path / "encoder").rename(tmp_path / ".encoder.123.old")
    (tmp_path / ".encoder.123.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert verify_folder(tmp_path / "encoder") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
