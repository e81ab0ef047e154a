"""Images in a .tar, .tar.gz, .tar.bz2 or .tar.xz, read in place."""

import tarfile
from pathlib import Path

import numpy as np

from selfsup.data.errors import BadDataError
from selfsup.data.files.archives import Members, RandomFile, common_folder, damaged, open_compressed
from selfsup.data.files.listing import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    Listing,
    classes_by_folder,
    file_fingerprint,
    looks_like_image,
    suffix_of,
)

_MAX_EXPANSION = 200  # images hardly shrink; a tar that grows more than this when unpacked was built to fill memory


class TarSource:
    """Members of an archive; item i is its bytes. A compressed archive is read forward only, so it cannot be streamed in random order."""

    portable = True
    heads = None
    groups = None

    def __init__(self, path: Path, listing: Listing, where: np.ndarray, *, compressed: bool) -> None:
        self._file, self.listing, self._where, self.seekable = RandomFile(path), listing, where, not compressed

    def read(self, i: int, *, head: bool = False) -> bytes:
        """Item i, or only its beginning."""
        offset, size = map(int, self._where[i])
        # The whole member at once when compressed: going back for the rest would unpack everything before it again.
        wanted = min(size, HEAD_BYTES) if head and self.seekable else size
        data = self._file.read_at(offset, wanted)
        if len(data) < wanted:
            raise ValueError("the archive is cut short here")
        return data


def open_tar(path: Path, inner: str = "") -> TarSource:
    """Every image of an archive, or of one folder in it.

    Raises:
        BadDataError: not a tar, or one that expands beyond reason.
        ValueError: no folder `inner`.
    """
    members = Members(columns=2)
    compressed = _is_compressed(path)
    try:
        with open_compressed(path) as file, tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            _scan(tar, members, path, compressed=compressed)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, BadDataError):
            raise
        raise damaged(path, f"damaged after {len(members.where) // 2} images", error) from error
    names, where = members.within(inner, path)
    labels, classes = classes_by_folder(names, common_folder(names))
    fingerprint = file_fingerprint(path, where.tobytes() + inner.encode("utf-8", "surrogateescape"))
    origin = str(path.resolve()) + (f"/{inner}" if inner else "")
    scan = members.scan
    listing = Listing(names, labels, classes, scan.all_skipped(), scan.refused(), fingerprint, origin, int(where[:, 1].sum()))
    return TarSource(path, listing, where, compressed=compressed)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))


def _scan(tar: tarfile.TarFile, members: Members, path: Path, *, compressed: bool) -> None:
    bound = _MAX_EXPANSION * path.stat().st_size + (1 << 26) if compressed else path.stat().st_size + (1 << 30)
    while (member := tar.next()) is not None:
        tar.__dict__["members"] = []  # or tarfile keeps every one of them
        end = member.offset_data + member.size
        if end > bound:
            raise damaged(path, f"member {member.name!r} ends at byte {end:,}, beyond what an archive of this size can hold")
        if member.isdir():
            continue
        name = member.name.encode("utf-8", "surrogateescape")
        name = name.removeprefix(b"./")
        if not members.sort_out(name, member.size, regular=member.isreg() and not member.issparse()):
            continue
        if suffix_of(name) not in IMAGE_SUFFIXES:
            assert tar.fileobj is not None
            tar.fileobj.seek(member.offset_data)
            if not looks_like_image(tar.fileobj.read(16)):
                members.reject_format(name)
                continue
        members.add(name, member.size, member.offset_data, member.size)
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):  # tarfile ends in silence where it finds neither a header nor the closing zeros
        raise damaged(path, f"no header at byte {tar.offset:,}, after {len(members.where) // 2} images")
