"""Images in a .zip, read in place.

The directory of the archive is parsed here rather than by `zipfile`, which keeps some 700 bytes for every member and gives up the
whole archive at one name that is not valid UTF-8. Format: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfsup.data.files.archives import Members, RandomFile, common_folder, damaged
from selfsup.data.files.listing import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    MAX_ENCODED_BYTES,
    Listing,
    classes_by_folder,
    file_fingerprint,
    looks_like_image,
    suffix_of,
)

_END = struct.Struct("<4s4H2IH")
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_ENCRYPTED, _UTF8 = 1, 0x800
_STORED, _DEFLATED = 0, 8


class _Member(NamedTuple):
    name: bytes
    offset: int
    packed: int
    size: int
    method: int
    crc: int
    encrypted: bool
    regular: bool


class ZipSource:
    """Members of an archive; item i is its bytes, checked against their checksum when read whole."""

    seekable = portable = True
    heads = None
    groups = None

    def __init__(self, path: Path, listing: Listing, where: np.ndarray) -> None:
        self._file, self.listing, self._where = RandomFile(path), listing, where

    def read(self, i: int, *, head: bool = False) -> bytes:
        """Item i, or only its beginning."""
        offset, packed, size, method, crc = map(int, self._where[i])
        return _read(self._file, offset, packed, size, method, crc, HEAD_BYTES if head else None)


def open_zip(path: Path, inner: str = "") -> ZipSource:
    """Every image of an archive, or of one folder in it.

    Raises:
        BadDataError: not a zip, or cut short.
        ValueError: no folder `inner`.
    """
    file, members = RandomFile(path), Members(columns=5)
    try:
        start, directory, count = _find_directory(file, path)
        for member in _entries(file, directory, count):
            _sort_out(members, member, file, start)
    except (struct.error, OSError) as error:
        raise damaged(path, "its directory is damaged", error) from error
    names, where = members.within(inner, path)
    labels, classes = classes_by_folder(names, common_folder(names))
    fingerprint = file_fingerprint(path, where.tobytes() + inner.encode("utf-8", "surrogateescape"))
    origin = str(path.resolve()) + (f"/{inner}" if inner else "")
    scan = members.scan
    return ZipSource(
        path, Listing(names, labels, classes, scan.all_skipped(), scan.refused(), fingerprint, origin, int(where[:, 1].sum())), where
    )


def _sort_out(members: Members, member: _Member, file: RandomFile, start: int) -> None:
    if member.name.endswith(b"/") or not members.sort_out(member.name, max(member.size, member.packed), regular=member.regular):
        return None
    offset = start + member.offset
    reason = None
    if member.encrypted:
        reason = "encrypted member"
    elif member.method not in (_STORED, _DEFLATED):
        reason = f"compression method {member.method} is not supported (stored and deflated are)"
    if suffix_of(member.name) in IMAGE_SUFFIXES:
        if reason is not None:
            return members.scan.refuse(member.name, reason)
    else:
        try:
            begins = b"" if reason else _read(file, offset, member.packed, member.size, member.method, member.crc, 16)
        except (ValueError, zlib.error):
            begins = b""
        if not looks_like_image(begins):
            return members.reject_format(member.name)
    return members.add(member.name, member.packed, offset, member.packed, member.size, member.method, member.crc)


def _find_directory(file: RandomFile, path: Path) -> tuple[int, int, int]:
    """(bytes before the archive proper, place of the directory, number of members)."""
    length = path.stat().st_size
    tail_start = max(0, length - 65_557)
    tail = file.read_at(tail_start, 65_557)
    found = tail.rfind(b"PK\5\6")
    if found < 0 or found + _END.size > len(tail):
        raise damaged(path, "no end record, so it is no zip or was cut short")
    end = tail_start + found
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, found)
    place = file.read_at(end - _END64_PLACE.size, _END64_PLACE.size) if end >= _END64_PLACE.size else b""
    if place.startswith(b"PK\6\7"):
        end = _END64_PLACE.unpack(place)[2]
        record = file.read_at(end, _END64.size)
        if not record.startswith(b"PK\6\6"):  # bytes were put before the archive, which its own numbers ignore
            end = tail_start + found - _END64_PLACE.size - _END64.size
            record = file.read_at(end, _END64.size)
        *_, count, size, offset = _END64.unpack(record)
    if size > end:
        raise damaged(path, f"its directory of {size} bytes is larger than the file before it")
    return end - size - offset, end - size, count


def _entries(file: RandomFile, place: int, count: int) -> Iterator[_Member]:
    """Members in the directory's order; reads a megabyte at a time."""
    buffer, at = b"", 0
    for _ in range(count):
        if len(buffer) - at < 200_000:  # an entry has at most 46 + 3 * 65,535 bytes
            place += at
            buffer, at = file.read_at(place, 1 << 20), 0
        signature, made, _, flags, method, _, _, crc, packed, size, n, extra, comment, _, _, mode, offset = _ENTRY.unpack_from(buffer, at)
        if signature != b"PK\1\2":
            raise struct.error("no entry where one should be")
        at += _ENTRY.size
        name, more = buffer[at : at + n], buffer[at + n : at + n + extra]
        at += n + extra + comment
        size, packed, offset = _wide(more, size, packed, offset)
        if not flags & _UTF8:
            name = _as_utf8(name)
        kind = stat.S_IFMT(mode >> 16) if made >> 8 == 3 else 0  # 3: made on Unix
        regular = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        yield _Member(name.replace(b"\\", b"/").removeprefix(b"./"), offset, packed, size, method, crc, bool(flags & _ENCRYPTED), regular)


def _wide(extra: bytes, *values: int) -> tuple[int, ...]:
    """Sizes and offset as 64 bits where the entry says that they did not fit 32."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            return tuple(next(wide, value) if value == 0xFFFFFFFF else value for value in values)
        at += 4 + length
    return values


def _as_utf8(name: bytes) -> bytes:
    """Old archives have names in code page 437, and many have UTF-8 without saying so."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437").encode()
    return name


def _read(file: RandomFile, offset: int, packed: int, size: int, method: int, crc: int, limit: int | None) -> bytes:
    local = file.read_at(offset, 30)
    if len(local) < 30 or not local.startswith(b"PK\3\4"):
        raise ValueError("the archive has no member where its directory says")
    begin = offset + 30 + sum(struct.unpack_from("<2H", local, 26))
    if max(packed, size) > MAX_ENCODED_BYTES:
        raise ValueError(f"member is larger than {MAX_ENCODED_BYTES >> 20} MiB")
    wanted = size if limit is None else min(limit, size)
    data = file.read_at(begin, packed if method == _DEFLATED else min(packed, wanted))
    if method == _DEFLATED:  # never inflates more than the directory announced, one byte more to notice a lie
        data = zlib.decompressobj(-15).decompress(data, wanted + (limit is None))
    if limit is None and (len(data) != size or zlib.crc32(data) != crc):
        raise ValueError("the archive is damaged here: length or checksum is wrong")
    return data
