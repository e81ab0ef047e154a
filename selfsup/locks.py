"""Locks on files and folders, which the system drops with a process that dies."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool | None]:
    """Hold the lock of a folder, or of a file, which is created where there is nothing.

    Yields:
        Whether it is held: False where somebody else holds it, which only comes without `wait`; None where there are no such locks.
    """
    if fcntl is None:
        yield None
        return
    handle = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held: bool | None = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:  # not on this file system
            held = None
        yield held
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a folder that two processes at once would write over each other's files in.

    Args:
        folder: which is there.
        doing: what the other one is doing, for the message.

    Raises:
        ValueError: another process holds it.
    """
    with locked(folder, wait=False) as held:
        if held is False:
            raise ValueError(f"{folder}: another process is {doing}; wait until it has ended, or stop it")
        yield
