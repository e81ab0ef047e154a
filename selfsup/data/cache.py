"""Folders of finished results on disk, each built once: beside its final place, flushed, then renamed.

An entry is whole or absent. Two builders of one entry wait for each other by a lock on a file, which the system drops with a process that
dies; where a file system has no such locks both build, and the first to rename wins.
"""

import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from selfsup.locks import locked

_CONTENTS = "contents.json"
_TEMPORARY = ".building-"
_EDGE = 1 << 20  # of a large file only both ends are read to check it


def cache_root(cache_dir: Path | None = None) -> Path:
    """`cache_dir`, else $SELFSUP_CACHE_DIR, else $XDG_CACHE_HOME/selfsup, else ~/.cache/selfsup."""
    if cache_dir is not None:
        return Path(cache_dir)
    if own := os.environ.get("SELFSUP_CACHE_DIR"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfsup"


def entry(root: Path, key: str, build: Callable[[Path], None], nbytes: int = 0) -> Path:
    """The folder `root/key`; `build` fills it if it is absent or damaged.

    Args:
        root: of the cache, made if needed.
        key: names everything that the contents depend on.
        build: writes files into the empty folder that it gets.
        nbytes: what it will write, checked against the space on the disk first.
    Raises:
        OSError: no space or no permission; nothing is left behind.
    """
    final = root / key
    if _is_whole(final):
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f"{key}.lock"):
            _remove_left_overs(root, key)
            if not _is_whole(final):
                _build(root, key, build, nbytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = f"no space for the cache ({nbytes / 2**20:,.0f} MiB are needed)"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            what = "the cache cannot be written"
        else:
            raise
        raise OSError(
            error.errno,
            f"{what}: {error.strerror}; set SELFSUP_CACHE_DIR to another disk, or go without (--no-cache, cache=False)",
            str(root),
        ) from error
    return final


def _build(root: Path, key: str, build: Callable[[Path], None], nbytes: int) -> None:
    if shutil.disk_usage(root).free < nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    temporary = Path(tempfile.mkdtemp(prefix=f"{key}{_TEMPORARY}", dir=root))
    final = root / key
    try:
        build(temporary)
        contents = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        (temporary / _CONTENTS).write_text(json.dumps(contents))
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if final.exists():  # damaged, or it would have been used; those who map it keep their files
            final.rename(temporary / "damaged")
        try:
            temporary.rename(final)
        except OSError:
            if not _is_whole(final):
                raise
        shutil.rmtree(final / "damaged", ignore_errors=True)
        _flush(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        contents = json.loads((folder / _CONTENTS).read_text())
        return bool(contents) and all(_digest(folder / name) == digest for name, digest in contents.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _digest(path: Path) -> list[int]:
    """Length and checksum; of a large file the checksum of both ends, for it is read at every start."""
    length = path.stat().st_size
    with path.open("rb") as file:
        checksum = zlib.crc32(file.read(_EDGE))
        file.seek(max(0, length - _EDGE))
        return [length, zlib.crc32(file.read(_EDGE), checksum)]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_left_overs(root: Path, own_key: str) -> None:
    """Folders whose builder died; a living one holds its lock. Called while holding the lock of `own_key`."""
    for left in root.glob(f"*{_TEMPORARY}*"):
        key = left.name.partition(_TEMPORARY)[0]
        if key == own_key:
            shutil.rmtree(left, ignore_errors=True)
        else:
            with locked(root / f"{key}.lock", wait=False) as held:
                if held:
                    shutil.rmtree(left, ignore_errors=True)
