"""What the benchmarks share: where they ran, tables, files of results, memory of a process and its children."""

import gzip
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
MIB = 2**20


def setting() -> dict[str, Any]:
    """Where and with what this runs, for every file of results."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # processes that want a core, over the last minute: 0 on a quiet machine
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def announce(facts: Mapping[str, Any]) -> None:
    """Print `setting()`, and a warning where the machine is not quiet."""
    print(f"{facts['hardware']}, {facts['threads']} threads, load {facts['load']}, torch {facts['torch']}, commit {facts['commit']}")
    if facts["load"] > 0.5:
        print(f"warning: {facts['load']} processes want a core already; these figures are not worth keeping", file=sys.stderr)


def hardware() -> str:
    """CPU, cores, memory, and the GPU where there is one."""
    info = Path("/proc/cpuinfo").read_text()
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    fast = "".join(f" {flag}" for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in info.replace("\n", " \n"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}{fast}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB{gpu}"


def commit() -> str:
    """Short hash of this repository's commit, with a plus sign where files differ from it."""
    git = ["git", "-C", str(HERE)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False).stdout.strip()
    return found.stdout.strip() + ("+" if changed else "") or "unknown"


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the columns of the first one; floats with four digits."""
    head = list(rows[0])
    cells = [head, *([_cell(row.get(name)) for name in head] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    for line in cells:
        print("  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "" if value is None else str(value)


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write results, or nothing where no path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1, default=str) + "\n")
        print(f"written to {path}")


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add one JSON object to a file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fits(line: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a line of results was measured with these settings."""
    return all(line.get(key) == value for key, value in wanted.items())


def median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def interleaved(contenders: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(round, contender): A B, B A, A B, ... so that neither always comes first, nor meets only the slow minutes of the machine."""
    for i in range(rounds):
        for name in contenders if i % 2 == 0 else reversed(contenders):
            yield i, name


def now() -> tuple[float, float]:
    """Seconds of the wall's clock, and of this process's cores."""
    return time.perf_counter(), time.process_time()


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long `work` takes; with `time.process_time`, of this process's cores, whoever else wants them."""
    begin = clock()
    work()
    return clock() - begin


def class_files(archive: zipfile.ZipFile, part: str, images: int | None = None) -> list[str]:
    """Members under `.../PART/CLASS/`, the same number of each class and the first of each, `images` in all; None for all."""
    classes: dict[str, list[str]] = {}
    for name in sorted(archive.namelist()):
        folders = name.split("/")
        if not name.endswith("/") and len(folders) >= 3 and folders[-3] == part:
            classes.setdefault(folders[-2], []).append(name)
    if not classes:
        raise SystemExit(f"{archive.filename}: no files as {part}/CLASS/NAME in it")
    if images is None:
        return [name for names in classes.values() for name in names]
    each, rest = divmod(images, len(classes))
    if rest or any(len(names) < each for names in classes.values()):
        raise SystemExit(f"{archive.filename}: cannot take {images} images evenly from {len(classes)} classes of {part}")
    return [name for names in classes.values() for name in names[:each]]


@contextmanager
def extracted(path: Path, part: str, images: int | None = None) -> Iterator[Path]:
    """A temporary folder PART/CLASS/NAME with files of an archive; a folder is given back as PATH/PART."""
    if path.is_dir():
        yield path / part
        return
    with TemporaryDirectory(prefix="selfsup-benchmark-") as folder:
        with zipfile.ZipFile(path) as archive:
            for name in class_files(archive, part, images):
                target = Path(folder, *name.split("/")[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
        yield Path(folder) / part


def copy_part(source: Path, target: Path, part: str, images: int) -> None:
    """An archive of so many files of one part, the same number of each class."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in class_files(old, part, images):
            new.writestr(name, old.read(name))


def inner_folder(path: Path, part: str) -> str:
    """How `selfsup` is told of one part: DATA.zip/cifar10/train, or DATA/train."""
    if path.is_dir():
        return str(path / part)
    with zipfile.ZipFile(path) as archive:
        return f"{path}/{class_files(archive, part)[0].rsplit('/', 2)[0]}"


MNIST = {"train": "train", "test": "t10k"}


def read_mnist(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The digits of four IDX files, gzipped or not: "train" and "test", each (N, 28, 28) uint8 images and (N,) int64 labels."""
    parts = {}
    for part, name in MNIST.items():
        images, labels = (read_idx(folder / f"{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if len(images) != len(labels):
            raise SystemExit(f"{folder}: {len(images)} images of {part}, but {len(labels)} labels")
        parts[part] = images, labels.astype(np.int64)
    return parts


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format, from PATH.gz or PATH."""
    packed = path.with_name(path.name + ".gz")
    if not (packed.exists() or path.exists()):
        raise SystemExit(f"{path}: expected this file or {packed.name}; MNIST comes as four such files")
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    axes = data[3] if data[:3] == b"\0\0\x08" else 0  # two zeros, the type (8 is uint8), the number of axes, then their lengths
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, 4)) if len(data) >= 4 + 4 * axes else ()
    if not axes or len(data) != 4 + 4 * axes + math.prod(shape):
        raise SystemExit(f"{path}: {len(data)} bytes are no IDX file of bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def memory_of(pid: int | str, fields: Sequence[str], file: str = "status") -> int:
    """Sum of fields of /proc/PID/FILE in bytes; PID may be "self"; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in fields)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        text = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        text = ""
    return [pid, *(p for child in text.split() for p in family(int(child)))]


class Memory(threading.Thread):
    """Samples what a process and its children hold, from outside, until the process ends.

    Attributes:
        private: peak of RssAnon + RssShmem of the process, in bytes: what it has for itself, without mapped files.
        all_private: the same, summed over its children.
        shared_out: the same over all of them, but a page that several share, as workers do after a fork, counts once.
        resident: VmHWM of the process, the kernel's own peak, mapped files included.
    """

    def __init__(self, pid: int, every: float = 0.05, *, fair: bool = False) -> None:
        super().__init__(daemon=True)
        self.pid, self.every, self.fair = pid, every, fair
        self.private = self.all_private = self.shared_out = self.resident = 0
        self.start()

    def run(self) -> None:
        while (now := memory_of(self.pid, ["RssAnon", "RssShmem"])) > 0:
            pids = family(self.pid)
            self.private = max(self.private, now)
            self.all_private = max(self.all_private, now + sum(memory_of(p, ["RssAnon", "RssShmem"]) for p in pids[1:]))
            self.resident = max(self.resident, memory_of(self.pid, ["VmHWM"]))
            if self.fair:  # the kernel walks all pages for it, so not often
                self.shared_out = max(self.shared_out, sum(memory_of(p, ["Pss_Anon", "Pss_Shmem"], "smaps_rollup") for p in pids))
            time.sleep(self.every)


def run_child(arguments: Sequence[str], *, every: float = 0.05, fair: bool = False, **environment: str) -> tuple[str, Memory]:
    """Run a Python process to its end; its standard output, and the memory that it took.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    memory = Memory(process.pid, every, fair=fair)
    out, err = process.communicate()
    memory.join()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(arguments)} ended with status {process.returncode}:\n{err[-3000:]}")
    return out, memory
