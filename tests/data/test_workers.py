"""Decoding processes: same results for any number of them, killed ones are replaced, and no user's script is run twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.data import open_data
from selfsup.data.images.prepare import run_task
from selfsup.data.images.sources import open_source
from selfsup.data.workers import Pool, available_cores


def test_results_keep_the_order_of_the_tasks(photos: Callable[..., Path]) -> None:
    source = open_source(photos(per_class=10))
    tasks = [("heads", np.array([i]), 10**6) for i in range(20)]
    with Pool(run_task, source, 2) as pool:
        assert pool.pids == []  # nothing to do, nothing started
        results = [found[0].tolist() for found, _ in pool.map(tasks)]
        assert len(pool.pids) == 2
        again = [found[0].tolist() for found, _ in pool.map(tasks)]
        pids = pool.pids
    assert results == again == [[24, 24, 3, 0]] * 20
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_number_of_processes_changes_nothing(photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.data.images.prepare._TASK_ITEMS", 7)  # several tasks
    folder = photos(per_class=20)
    (folder / "cat" / "bad.png").write_bytes(b"no")
    opened = [open_data(folder, workers=workers, cache_dir=tmp_path / f"c{workers}", max_bad=0.1) for workers in (0, 2)]
    for items in opened:
        images = [np.asarray(Image.open(folder / name)).transpose(2, 0, 1) for name in items.names]
        np.testing.assert_array_equal(items.batch(np.arange(40))["image"], np.stack(images))
    assert opened[0].skipped == opened[1].skipped
    assert [s.name for s in opened[0].skipped] == ["cat/bad.png"]


def test_killed_processes_are_replaced_and_nothing_is_lost(photos: Callable[..., Path]) -> None:
    source = open_source(photos(per_class=20))
    with Pool(run_task, source, 2) as pool:
        expected = list(range(40))
        seen = []
        for i, (found, bad) in enumerate(pool.map(("heads", np.array([i]), 10**6) for i in range(40))):
            assert found.shape == (1, 4)
            assert not bad
            seen.append(i)
            if i in (3, 17):
                os.kill(pool.pids[i % 2], signal.SIGKILL)
    assert seen == expected


def test_a_task_that_kills_again_and_again_is_given_up() -> None:
    with Pool(os._exit, 9, 1) as pool, pytest.raises(RuntimeError, match=r"with status 9 4 times .* enough memory"):
        list(pool.map([()]))
    with Pool(os.getenv, "NO_SUCH_NAME", 1) as pool:
        assert list(pool.map([("fallback",)])) == ["fallback"]


def test_errors_come_back(photos: Callable[..., Path]) -> None:
    source = open_source(photos())
    with Pool(run_task, source, 1) as pool, pytest.raises(KeyError, match="no such task"):
        list(pool.map([("no such task",)]))


def test_closing_early_ends_the_processes(photos: Callable[..., Path]) -> None:
    source = open_source(photos())
    with Pool(run_task, source, 2) as pool:
        next(pool.map(("heads", np.array([i % 6]), 10**6) for i in range(10**6)))
        pids = pool.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def run(*arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=100)


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nimport os\nfrom selfsup.data.workers import Pool\n"
        "with Pool(os.path.join, 'a', 2) as pool:\n    print(*pool.map([('b',), ('c',)]))\n"
    )
    result = run(str(script))
    assert (result.stdout, result.stderr) == ("once\na/b a/c\n", "")


def test_decoding_processes_need_no_torch() -> None:
    result = run("-c", "import sys, selfsup.data.images.prepare; print('torch' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


def test_some_core_is_available() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
