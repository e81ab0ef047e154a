"""What a run says: metrics.jsonl and status.json in its folder, progress on stderr; results go to stdout and are not its business."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from selfsup.engine.checkpoint import replace_file

FLUSH_SECONDS = 2.0


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line; values stay on the device until they are written, so that logging stalls nothing.

    Args:
        path: the file; lines after `step` are dropped, as they belong to updates that a resumed run makes again.
        step: of the checkpoint that the run starts from, 0 for a new run.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        self.waiting: list[dict[str, Any]] = []
        self.flushed = time.monotonic()
        if path.exists():
            kept = [line for line in path.read_text().splitlines(keepends=True) if _step_of(line) <= step]
            replace_file(path, "".join(kept).encode())

    def add(self, **values: Any) -> None:
        """A line; tensors are read when it is written."""
        self.waiting.append(values)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all lines that wait."""
        with self.path.open("a") as file:
            for line in self.waiting:
                file.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
        self.waiting.clear()
        self.flushed = time.monotonic()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill belongs to no checkpoint
        return math.inf


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, float):
        # Nine digits tell every float32 from its neighbours; JSON has no NaN, so that is written as text.
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    return value


def write_status(run: Path, **status: Any) -> None:
    """`status.json`, replaced in one step: what the run is doing now."""
    replace_file(run / "status.json", json.dumps(status, indent=1).encode())


def peak_mib(run: Path) -> float:
    """Most resident memory of this process so far, mapped files included, or that of one before it on the same run, if it was more."""
    try:
        before = float(json.loads((run / "status.json").read_text())["peak_mib"])
    except (OSError, ValueError, KeyError, TypeError):
        before = 0.0
    try:  # what getrusage says holds the memory of the process that this one was forked from
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return round(max(before, own), 1)


class Progress:
    """Progress on stderr: one live line on a terminal, plain lines elsewhere.

    Args:
        quiet: say nothing.
        every: seconds between plain lines.
    """

    def __init__(self, *, quiet: bool = False, every: float = 15.0) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty()
        self.every = every
        self.last = -math.inf
        self.monitors: dict[str, float] = {}

    def due(self) -> bool:
        """Whether `show` would print now; asked first, since reading a metric waits for the device."""
        return not self.quiet and time.monotonic() - self.last > (0.2 if self.live else self.every)

    def show(self, *, progress: float, step: int, steps: int | None, seconds: float, values: Mapping[str, float]) -> None:
        """One line: how far, how fast, how long yet, and the newest figures."""
        self.last = time.monotonic()
        left = seconds / progress * (1 - progress) if progress > 0 else math.inf
        figures = "  ".join(f"{key} {value:.4g}" for key, value in {**values, **self.monitors}.items())
        line = f"{progress:4.0%}  step {step}{f'/{steps}' if steps else ''}  {_clock(left)} left  {figures}"
        if self.live:
            sys.stderr.write("\r\x1b[2K" + line[: _columns() - 1])
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            sys.stderr.write(("\r\x1b[2K" if self.live else "") + text + "\n")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Progress of something else than the training: a line that the next one replaces."""
        self.last = time.monotonic()
        if not self.quiet:
            sys.stderr.write("\r\x1b[2K" + text if self.live else text + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """End the live line."""
        if self.live and not self.quiet and self.last > -math.inf:
            sys.stderr.write("\n")


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
