"""What a source finds: names, classes and what it leaves out, in a few arrays whatever the number of items.

A name is kept as bytes: file names need not be valid text. One Python string per item would cost 100 bytes each for ever; here it is its
own length plus 8.
"""

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from selfsup.data.errors import Skipped

HEAD_BYTES = 65_536
"""What is read of an encoded image to learn its size; the few whose header is longer are read whole."""
MAX_ENCODED_BYTES = 1 << 30
"""A larger file or member is refused: no image within the pixel limit needs it."""

IMAGE_SUFFIXES = frozenset(b".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .tif .tiff .gif".split())
# Images all the same, so losing them counts as losing data.
UNSUPPORTED_SUFFIXES = frozenset(
    b".heic .heif .avif .jp2 .j2k .jxl .psd .exr .hdr .dng .cr2 .nef .arw .dcm .svg .ico .tga .ppm .pgm .pbm .pcx .fits .eps".split()
)
_HIDDEN = re.compile(rb"(?:\A|/)(?:\.(?!/|\Z)|(?:__macosx|thumbs\.db|desktop\.ini)(?:/|\Z))", re.IGNORECASE)
_AT_ONCE = 65_536  # names whose places are Python's numbers at a time
_LISTED_ONE_BY_ONE = 1000  # captions beside a million images are summed up per suffix beyond this many


class Names(Sequence[str]):
    """N names, joined; decoded when asked for, with escapes where the bytes are not UTF-8."""

    def __init__(self, blob: np.ndarray, ends: np.ndarray, rows: np.ndarray | None = None) -> None:
        self._blob, self._ends, self._rows = blob, ends, rows

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        """Join names."""
        blob, ends = bytearray(), array("q")
        for name in names:
            blob += name
            ends.append(len(blob))
        return cls(np.frombuffer(bytes(blob), np.uint8), np.frombuffer(ends.tobytes(), np.int64))

    def __len__(self) -> int:
        return len(self._ends if self._rows is None else self._rows)

    def raw(self, i: int) -> bytes:
        """Name i as the bytes that the source gave."""
        row = i if self._rows is None else int(self._rows[i])
        return self._blob[int(self._ends[row - 1]) if row else 0 : int(self._ends[row])].tobytes()

    def all_raw(self) -> Iterator[bytes]:
        """All of them in turn, several times as fast as one by one."""
        rows, blob = np.arange(len(self._ends)) if self._rows is None else self._rows, self._blob.data
        for first in range(0, len(rows), _AT_ONCE):
            part = rows[first : first + _AT_ONCE]
            starts = np.where(part > 0, self._ends[part - 1], 0)
            for start, end in zip(starts.tolist(), self._ends[part].tolist(), strict=True):
                yield blob[start:end].tobytes()

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "Names": ...
    def __getitem__(self, i: int | slice) -> "str | Names":
        if isinstance(i, slice):
            return self.take(np.arange(len(self))[i])
        if not -len(self) <= i < len(self):
            raise IndexError(f"name {i} of {len(self)}")
        return shown(self.raw(int(i) % len(self)))

    def take(self, index: np.ndarray) -> "Names":
        """The names at `index`, without copying them."""
        return Names(self._blob, self._ends, index if self._rows is None else self._rows[index])


def shown(name: bytes) -> str:
    r"""A name that can be printed and written as UTF-8; other bytes appear as \xff."""
    return name.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Listing:
    """What is known of a source before any item is decoded.

    Attributes:
        names: of the N items, in their order.
        labels: (N,) int64 numbers of `classes`, -1 for unknown; None where the data has no classes.
        classes: names, sorted.
        skipped: what was left out.
        refused: how many of `skipped` are lost images, which count against `max_bad`.
        fingerprint: hex, changes when the data changes.
        origin: absolute path, or "array", "dataset".
        nbytes: encoded size of all items, 0 when unknown.
    """

    names: Names
    labels: np.ndarray | None
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    refused: int
    fingerprint: str
    origin: str
    nbytes: int = 0


@dataclass
class Scan:
    """Collects what a source finds, item by item, while it looks through its files."""

    blob: bytearray = field(default_factory=bytearray)
    ends: array = field(default_factory=lambda: array("q"))
    skipped: list[tuple[Skipped, bool]] = field(default_factory=list)  # True: an image was lost
    nbytes: int = 0
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: bytes, nbytes: int) -> None:
        """An item."""
        self.blob += name
        self.ends.append(len(self.blob))
        self.nbytes += nbytes

    def note(self, name: bytes, reason: str) -> None:
        """Something left out that is no lost image."""
        self.skipped.append((Skipped(shown(name), reason), False))

    def refuse(self, name: bytes, reason: str) -> None:
        """An image that cannot be had; counts against `max_bad`."""
        self.skipped.append((Skipped(shown(name), reason), True))

    def other(self, name: bytes) -> None:
        """A file that is no image and was never meant to be one."""
        suffix = shown(suffix_of(name)) or "no suffix"
        self.others[suffix] += 1
        if self.others.total() <= _LISTED_ONE_BY_ONE:
            self.skipped.append((Skipped(shown(name), f"not an image: {suffix}"), False))

    def names(self) -> Names:
        """Names of the items so far."""
        return Names(np.frombuffer(bytes(self.blob), np.uint8), np.frombuffer(self.ends.tobytes(), np.int64))

    def all_skipped(self) -> tuple[Skipped, ...]:
        """What was left out, with one line for each group that is not listed file by file."""
        groups = [Skipped("(hidden)", f"{self.hidden} hidden or system files")] if self.hidden else []
        if self.others.total() > _LISTED_ONE_BY_ONE:
            groups += [Skipped(f"*{s}", f"not an image: {n} files of this kind in all") for s, n in sorted(self.others.items())]
        return (*(skipped for skipped, _ in self.skipped), *groups)

    def refused(self) -> int:
        """How many images were lost."""
        return sum(lost for _, lost in self.skipped)


def suffix_of(name: bytes) -> bytes:
    """Lower-case suffix with its dot, empty when there is none."""
    base = name.rsplit(b"/", 1)[-1]
    dot = base.rfind(b".")
    return base[dot:].lower() if dot > 0 else b""


def is_hidden(name: bytes) -> bool:
    """Whether a part of the path is hidden or a file that an operating system left behind."""
    return _HIDDEN.search(name) is not None


def unsafe(name: bytes) -> str | None:
    """Why a member's name may not be trusted, None when it may. Nothing is ever written, but such an archive was built to do harm."""
    parts = name.split(b"/")
    if not parts[0] or (len(parts[0]) == 2 and parts[0][1:] == b":"):
        return "absolute path inside the archive"
    if b".." in parts:
        return "path leaves the archive (..)"
    return "NUL byte in its name" if b"\0" in name else None


def looks_like_image(start: bytes) -> bool:
    """Whether the first 16 bytes are those of a format that `decode` reads."""
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return True
    return (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or (start[:2] == b"BM" and start[6:10] == bytes(4))


def classes_by_folder(names: Names, prefix: bytes = b"") -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Class of each item = the folder that directly holds it, unless that is the root.

    Args:
        names: relative to the root, parts joined by "/".
        prefix: folders between the root and where the names begin; not part of any class.
    Returns:
        labels (N,) int64, -1 for items in the root, or None when all are; sorted class names.
    """
    numbers: dict[bytes, int] = {}
    labels = np.empty(len(names), np.int64)
    for i, name in enumerate(names.all_raw()):
        parent = name[len(prefix) :].rpartition(b"/")[0].rpartition(b"/")[2]
        labels[i] = numbers.setdefault(parent, len(numbers)) if parent else -1
    if not numbers:
        return None, ()
    order = sorted(numbers, key=shown)
    renumber = np.empty(len(order), np.int64)
    renumber[[numbers[name] for name in order]] = np.arange(len(order))
    return np.where(labels < 0, -1, renumber[labels]), tuple(shown(name) for name in order)


def file_fingerprint(path: Path, extra: bytes = b"") -> str:
    """Of one file's size, time of change and 16 blocks spread over it; reading a terabyte to name it would be absurd."""
    stat = path.stat()
    digest = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns}".encode() + extra, digest_size=16)
    with path.open("rb") as file:
        for block in range(16):
            file.seek(max(0, (stat.st_size - HEAD_BYTES) * block // 15))
            digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()
