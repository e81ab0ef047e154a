"""Images in a folder, nested to any depth, or in a list of paths."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfsup.data.files.listing import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    MAX_ENCODED_BYTES,
    UNSUPPORTED_SUFFIXES,
    Listing,
    Scan,
    classes_by_folder,
    is_hidden,
    looks_like_image,
    shown,
    suffix_of,
)


class FolderSource:
    """Files below `root`; item i is its bytes."""

    seekable = portable = True
    heads = None
    groups = None

    def __init__(self, root: bytes, listing: Listing) -> None:
        self._root, self.listing = root, listing

    def read(self, i: int, *, head: bool = False) -> bytes:
        """Item i, or only its beginning."""
        with open(os.path.join(self._root, self.listing.names.raw(i)), "rb") as file:  # noqa: PTH118, PTH123 bytes paths
            if head:
                return file.read(HEAD_BYTES)
            if os.fstat(file.fileno()).st_size > MAX_ENCODED_BYTES:
                raise ValueError(f"file is larger than {MAX_ENCODED_BYTES >> 20} MiB")
            return file.read()


def open_folder(root: Path) -> FolderSource:
    """Every image below `root`; links are followed, each folder is visited once."""
    base = os.fsencode(root.resolve())
    scan, digest = Scan(), hashlib.blake2b(digest_size=16)
    seen: set[tuple[int, int]] = set()
    todo = [b""]
    while todo:
        folder = todo.pop()
        subfolders = _scan_folder(base, folder, scan, digest, seen)
        todo += reversed(subfolders)
    return _finish(base, scan, digest)


def _scan_folder(base: bytes, folder: bytes, scan: Scan, digest: hashlib.blake2b, seen: set[tuple[int, int]]) -> list[bytes]:
    path = os.path.join(base, folder) if folder else base  # noqa: PTH118 bytes paths
    try:
        status = os.stat(path)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            scan.note(folder + b"/", "folder was visited already: a link that loops or repeats")
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        scan.refuse(folder + b"/", f"folder cannot be read: {error.strerror}")
        return []
    if not entries:
        scan.note(folder + b"/", "empty folder")
    subfolders = []
    for entry in entries:
        name = folder + b"/" + entry.name if folder else entry.name
        if is_hidden(entry.name):
            scan.hidden += 1
        elif _is_folder(entry):
            subfolders.append(name)
        else:
            _scan_file(base, name, scan, digest)
    return subfolders


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a file that cannot be read
        return False


def _scan_file(base: bytes, name: bytes, scan: Scan, digest: hashlib.blake2b, *, trusted: bool = False) -> None:
    """`trusted`: the user named this very file, so it is an image whatever its suffix."""
    path = os.path.join(base, name)  # noqa: PTH118 bytes paths
    suffix = suffix_of(name)
    meant_as_image = trusted or suffix in IMAGE_SUFFIXES or suffix in UNSUPPORTED_SUFFIXES
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise OSError(0, "not a regular file")
        if not (trusted or suffix in IMAGE_SUFFIXES):
            with open(path, "rb") as file:  # noqa: PTH123 bytes path
                is_image = looks_like_image(file.read(16))
            if not is_image:
                if meant_as_image:
                    scan.refuse(name, f"image format {shown(suffix)} is not supported")
                else:
                    scan.other(name)
                return
    except OSError as error:
        if meant_as_image:
            scan.refuse(name, f"cannot be read: {error.strerror}")
        else:
            scan.other(name)
        return
    digest.update(b"%d %d " % (status.st_size, status.st_mtime_ns) + name + b"\0")
    scan.add(name, status.st_size)


def _finish(base: bytes, scan: Scan, digest: hashlib.blake2b) -> FolderSource:
    names = scan.names()
    for i in _spread(len(names)):  # times can be reset by unpacking, so look into a few files as well
        try:
            with open(os.path.join(base, names.raw(i)), "rb") as file:  # noqa: PTH118, PTH123 bytes path
                digest.update(file.read(4096))
        except OSError:
            continue  # pass 1 will say why
    labels, classes = classes_by_folder(names)
    listing = Listing(names, labels, classes, scan.all_skipped(), scan.refused(), digest.hexdigest(), os.fsdecode(base), scan.nbytes)
    return FolderSource(base, listing)


def _spread(n: int, count: int = 64) -> Iterator[int]:
    yield from sorted({i * (n - 1) // max(1, count - 1) for i in range(count)}) if n else ()


def open_paths(paths: Sequence[str | os.PathLike]) -> FolderSource:
    """Exactly these files, in this order; classes are the folders that hold them, when there is more than one.

    Raises:
        ValueError: a path is a folder.
    """
    full = [os.fsencode(os.path.abspath(path)) for path in paths]  # noqa: PTH100 bytes paths, links kept as they are
    folders = sorted({os.path.dirname(path) for path in full})  # noqa: PTH120
    base = os.path.commonpath(folders) if folders else b"/"
    scan, digest = Scan(), hashlib.blake2b(digest_size=16)
    for path in full:
        if os.path.isdir(path):  # noqa: PTH112
            raise ValueError(f"a list of paths must name image files, got the folder {shown(path)}: pass one folder alone, or its files")
        _scan_file(base, os.path.relpath(path, base), scan, digest, trusted=True)
    return _finish(base, scan, digest)
