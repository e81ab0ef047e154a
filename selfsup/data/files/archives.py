"""What zip and tar have in common: a file read at any place, by any process, and the choice of a folder inside."""

import bz2
import gzip
import io
import lzma
import os
import threading
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.errors import BadDataError
from selfsup.data.files.listing import (
    IMAGE_SUFFIXES,
    MAX_ENCODED_BYTES,
    UNSUPPORTED_SUFFIXES,
    Names,
    Scan,
    is_hidden,
    shown,
    suffix_of,
    unsafe,
)


class RandomFile:
    """A file, perhaps compressed, that is read at given places; opened anew in every process, so that none moves another's position."""

    def __init__(self, path: Path) -> None:
        self._path, self._pid, self._lock = path, -1, threading.Lock()
        self._file: io.BufferedIOBase | None = None

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self._path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid, self._lock = open_compressed(self._path), os.getpid(), threading.Lock()
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


def open_compressed(path: Path) -> io.BufferedIOBase:
    """Open by the first bytes: gzip, bzip2, xz or plain."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start.startswith(b"\xfd7zXZ"):
        return lzma.open(path)
    return path.open("rb")


@dataclass
class Members:
    """Members that may be images, with where they lie; `where` has a few int64 columns that zip and tar define for themselves."""

    columns: int
    scan: Scan = field(default_factory=Scan)
    where: array = field(default_factory=lambda: array("q"))

    def sort_out(self, name: bytes, size: int, *, regular: bool) -> bool:
        """Count and name what cannot be used; whether the member may be an image."""
        suffix = suffix_of(name)
        meant_as_image = suffix in IMAGE_SUFFIXES or suffix in UNSUPPORTED_SUFFIXES
        reason = unsafe(name)
        if reason is None and not regular:
            reason = "a link or device inside the archive"
        if reason is None and meant_as_image and size > MAX_ENCODED_BYTES:
            reason = f"member is larger than {MAX_ENCODED_BYTES >> 20} MiB"
        if reason is not None:
            self.scan.refuse(name, reason) if meant_as_image else self.scan.note(name, reason)
        elif is_hidden(name):
            self.scan.hidden += 1
        else:
            return True
        return False

    def add(self, name: bytes, size: int, *where: int) -> None:
        """An item."""
        self.scan.add(name, size)
        self.where.extend(where)

    def reject_format(self, name: bytes) -> None:
        """A member that has neither the suffix nor the first bytes of a supported image."""
        suffix = suffix_of(name)
        if suffix in UNSUPPORTED_SUFFIXES:
            self.scan.refuse(name, f"image format {shown(suffix)} is not supported")
        else:
            self.scan.other(name)

    def within(self, inner: str, archive: Path) -> tuple[Names, np.ndarray]:
        """Names relative to the folder `inner`, and where (N, columns), of the members below it.

        Raises:
            ValueError: no such folder, or several.
        """
        names, where = self.scan.names(), np.frombuffer(self.where.tobytes(), np.int64).reshape(-1, self.columns)
        if not inner:
            return names, where
        prefix = _find_folder(names, os.fsencode(inner).strip(b"/"), archive) + b"/"
        rows = np.fromiter((i for i, name in enumerate(names.all_raw()) if name.startswith(prefix)), np.int64)
        self.scan.skipped = [s for s in self.scan.skipped if s[0].name.startswith(shown(prefix))]
        return Names.of(name[len(prefix) :] for name in names.take(rows).all_raw()), where[rows]


def _find_folder(names: Names, wanted: bytes, archive: Path) -> bytes:
    folders: set[bytes] = set()
    last = None
    for name in names.all_raw():
        folder = within = name.rpartition(b"/")[0]
        while folder and folder != last and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
        last = within
    if wanted in folders:
        return wanted
    found = sorted(folder for folder in folders if folder.endswith(b"/" + wanted))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"several folders of {archive} end in {shown(wanted)}: {', '.join(map(shown, found[:5]))}; give more of the path")
    some = ", ".join(shown(folder) for folder in sorted(folders, key=lambda folder: (folder.count(b"/"), folder))[:8])
    raise ValueError(f"no folder {shown(wanted)} with images in {archive}; there are: {some or 'none'}")


def common_folder(names: Names) -> bytes:
    """The folder, with its "/", that wraps all members, as archivers add one; empty when there is none."""
    if not len(names):
        return b""
    prefix = names.raw(0).rpartition(b"/")[0].split(b"/")
    for name in names.all_raw():
        if not prefix:
            return b""
        parts = name.rpartition(b"/")[0].split(b"/")
        while prefix and parts[: len(prefix)] != prefix:
            prefix.pop()
    return b"/".join([*prefix, b""]) if prefix and prefix != [b""] else b""


def damaged(archive: Path, what: str, error: Any = "") -> BadDataError:
    """The error of an archive that cannot be read as one."""
    return BadDataError(f"{archive} is not a readable archive: {what}{f' ({error})' if error else ''}; fetch or make it again")
