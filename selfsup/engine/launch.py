"""Processes that train together: joining a group, and a supervisor of our own that relaunches and resumes.

torchrun's in-place restart loses about half of the runs with gloo after a worker is killed, and an agent can hang after a cut link; so
every process is ended, hard where it must be, and all are started again from the newest checkpoint.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from selfsup.engine.checkpoint import steps_saved
from selfsup.engine.signals import handling

GRACE_SECONDS = 20.0  # between asking a process to end and ending it
LAST_WORDS = (0, 2, 3, 4, 5, 75, 130)  # statuses that another start would only repeat: done, usage, bad data, damage, diverged, stopped
TIMEOUT = timedelta(minutes=10)


class WorkersFailedError(RuntimeError):
    """Processes kept failing; `status` is what the first of them ended with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def launched() -> bool:
    """Whether torchrun, Slurm's or our own supervisor started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def join_group() -> None:
    """Join the process group that the environment names; nothing on a single process."""
    if launched() and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend, timeout=TIMEOUT)


def supervise(run: Path, processes: int, *, restarts: int = 3, quiet: bool = False) -> None:
    """Run `selfsup pretrain --resume RUN` in several processes, and again from the newest checkpoint when one of them dies.

    Args:
        run: a prepared run folder.
        processes: how many, on this machine.
        restarts: how often to start again; counted anew whenever a checkpoint has been gained since.
        quiet: no progress.

    Raises:
        WorkersFailedError: it could not be brought to an end.
    """
    left = restarts
    while True:
        before = steps_saved(run / "checkpoints")
        status = _once(run, processes, quiet)
        if status == 0:
            return
        if status in LAST_WORDS:
            raise WorkersFailedError(f"training ended with status {status}; what the processes said stands above", status)
        left = restarts if steps_saved(run / "checkpoints") != before else left - 1
        if left < 0:
            raise WorkersFailedError(
                f"a process failed {restarts + 1} times without a new checkpoint between; the last status was {status}", 1
            )
        sys.stderr.write(f"a process ended with status {status}; starting all again from the newest checkpoint\n")


def run_alone(command: list[str], errors: Path) -> tuple[int, int]:
    """Run a process to its end, passing on what signals come; what it says on stderr goes into a file.

    Returns:
        Its status, negative for the signal that killed it; and the first signal that was passed on, 0 for none. A process that is still
        starting knows nothing of saving, and dies of it.
    """
    with errors.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, preexec_fn=_end_with_parent)
    with _forward_signals([process]) as passed:
        status = process.wait()
    return status, passed[0] if passed else 0


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent is killed, so that nobody goes on training for a contest that is no more."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _once(run: Path, processes: int, quiet: bool) -> int:
    """Start all, wait until all are done or one has failed; returns 0 or the first failure's status."""
    port = _free_port()
    cores = max(1, len(os.sched_getaffinity(0)) // processes) if hasattr(os, "sched_getaffinity") else 1
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    threads = os.environ.get("OMP_NUM_THREADS", str(cores))
    command = [sys.executable, "-m", "selfsup", "pretrain", "--resume", str(run), *(["--quiet"] if quiet else [])]
    workers = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(i), "LOCAL_RANK": str(i), "OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,  # the result is printed once, by the process that supervises
            start_new_session=True,  # so that a process can be ended with everything it started
        )
        for i in range(processes)
    ]
    with _forward_signals(workers):
        try:
            while True:
                statuses = [worker.poll() for worker in workers]
                failed = [s for s in statuses if s]
                if failed:
                    _wait(workers, 2.0)  # the cause is often a neighbour that is still ending: let it say its own status
                    return _cause([s for s in (worker.poll() for worker in workers) if s])
                if all(s == 0 for s in statuses):
                    return 0
                time.sleep(0.1)
        finally:
            _end(workers)


def _cause(statuses: list[int]) -> int:
    # A process that lost its partner fails with 1; one that was killed or has a reason of its own is the cause.
    return next((s for s in statuses if s != 1), 1)


def _end(workers: list[subprocess.Popen[Any]]) -> None:
    for signal_number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        for worker in workers:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal_number)
        _wait(workers, patience)


def _wait(workers: list[subprocess.Popen[Any]], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(worker.poll() is None for worker in workers):
        time.sleep(0.05)


@contextlib.contextmanager
def _forward_signals(workers: list[subprocess.Popen[Any]]) -> Any:
    """Pass SIGINT, SIGTERM and SIGUSR1 on; the processes save, say so by their status, and the supervisor ends with that.

    Gives a list that the signals are put down in.
    """
    passed: list[int] = []

    def forward(number: int, _frame: Any) -> None:
        passed.append(number)
        for worker in workers:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, number)

    with handling(forward, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        yield passed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
