"""Processes that work through a list of tasks; one that is killed is replaced and its task is done again.

They are plain subprocesses that talk over their standard input and output, not `multiprocessing`'s: that runs the user's script again in
every child, where a script without `if __name__ == "__main__"` starts the whole training anew.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

_RESTARTS = 3
_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from selfsup.data.workers import serve; serve()"


class Pool:
    """Calls `function(shared, *task)` for every task.

    Args:
        function: defined at the top of a module that imports no torch, or starting takes seconds.
        shared: sent to every process once.
        count: processes; 0 calls the function here.
    """

    def __init__(self, function: Callable[..., Any], shared: Any, count: int) -> None:
        self._function, self._shared = function, shared
        count = count if os.name == "posix" and sys.executable else 0  # elsewhere pipes cannot be waited for together
        self._count, self._workers = count, []  # started when there is something to do: with a full cache there is not

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes, for tests."""
        return [worker.process.pid for worker in self._workers]

    def map(self, tasks: Iterable[tuple]) -> Iterator[Any]:
        """Results in the order of the tasks, whatever the number of processes. Use it to its end, or close the pool.

        Raises:
            RuntimeError: a process died four times over the same task.
            Exception: what the function raised.
        """
        if not self._count:
            yield from (self._function(self._shared, *task) for task in tasks)
            return
        if not self._workers:
            self._workers = [_Worker(self._function, self._shared) for _ in range(self._count)]
        waiting, results, running = enumerate(tasks), {}, {}
        following, exhausted = 0, False
        while True:
            for worker in self._workers:
                # Far ahead of what was asked for, results would only pile up.
                if worker not in running and not exhausted and len(results) + len(running) < 3 * len(self._workers):
                    number, task = next(waiting, (-1, ()))
                    exhausted = number < 0
                    if not exhausted:
                        running[worker] = (number, task)
                        worker.start(task)
            if following in results:
                yield results.pop(following)
                following += 1
                continue
            if not running:
                return
            for worker in _ready(running):
                number, task = running[worker]
                done, result = worker.finish(task)
                if done:
                    results[number] = result
                    del running[worker]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()
        self._workers = []


def _ready(running: dict["_Worker", Any]) -> list["_Worker"]:
    by_inbox = {worker.inbox: worker for worker in running}
    return [by_inbox[inbox] for inbox in wait(list(by_inbox))]  # type: ignore[index]


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, function: Callable[..., Any], shared: Any) -> None:
        self._job, self._deaths = (function, shared), 0
        self._launch()

    def _launch(self) -> None:
        # One thread each: there is a process per core already.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _CHILD, *sys.path]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.outbox = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self.inbox = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()
        self._send(self._job)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it died; `finish` will notice, for its answer never comes
            self.outbox.send(message)

    def start(self, task: tuple) -> None:
        self._deaths = 0
        self._send(task)

    def finish(self, task: tuple) -> tuple[bool, Any]:
        """(True, result), or (False, None) when the process had to be replaced and works on the task again."""
        try:
            good, result = self.inbox.recv()
        except (EOFError, OSError):
            self._deaths += 1
            self.close()
            status = self.process.returncode
            if self._deaths > _RESTARTS:
                what = f"by signal {-status}" if status < 0 else f"with status {status}"
                raise RuntimeError(
                    f"a decoding process ended {what} {self._deaths} times over the same items; is there enough memory?"
                ) from None
            self._launch()
            self._send(task)
            return False, None
        if not good:
            raise result
        return True, result

    def close(self) -> None:
        self.outbox.close()
        self.inbox.close()
        self.process.kill()
        self.process.wait()


def serve() -> None:
    """The life of a process: receive (function, shared), then answer tasks until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    inbox, outbox = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever a library prints must not land between the answers
    try:
        function, shared = inbox.recv()
        while True:
            task = inbox.recv()
            try:
                answer = (True, function(shared, *task))
            except Exception as error:  # the parent raises it
                answer = (False, error)
            outbox.send(answer)
    except (EOFError, OSError):
        return


def available_cores() -> int:
    """CPU cores that this process may use, by its affinity and its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:  # noqa: PTH123
            quota, period = file.read().split()
            return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count
