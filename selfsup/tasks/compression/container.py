"""The file of `selfsup compress`: a header, then blocks of coded images, each behind a checksum that holds all before it.

    8 bytes   MAGIC
    2 bytes   VERSION
    4 bytes   length of the header, then the header: JSON under LZMA, see `Header`
    8 bytes   checksum of everything so far
    for each block: 4 bytes length, the bytes, 8 bytes checksum of the checksum before, the length and the bytes

Whole numbers are little-endian. Nothing in it is executed, and nothing is believed before its checksum has been compared.
"""

import hashlib
import json
import lzma
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from selfsup.engine.checkpoint import DamagedError, replace_file

MAGIC = b"\x89SSC\r\n\x1a\n"
VERSION = 1
DIGEST = 8
LARGEST_HEADER = 1 << 28
MOST_CODES = 1 << 14
MOST_PIXELS = 1 << 28
"""Of one image: more is not believed."""


@dataclass(frozen=True)
class Header:
    """What is known of a file before its blocks are read.

    Attributes:
        run: fingerprint of the weights that made the codes.
        codes: K, how many codes there are.
        channels: C of the images.
        prior: whether the codes are counted by the run's prior; else `table` has their frequencies.
        table: share of each code in 2^16, K of them; empty for equal shares, or where the prior is used.
        shapes: different shapes of images: height and width in pixels, height and width of the map.
        shape_of: number of each image's shape; empty where there is one.
        blocks: images in each block.
        names: of the images.
    """

    run: str
    codes: int
    channels: int
    prior: bool
    table: list[int]
    shapes: list[list[int]]
    shape_of: list[int]
    blocks: list[int]
    names: list[str]

    def shape(self, image: int) -> list[int]:
        """Of one image; see `shapes`."""
        return self.shapes[self.shape_of[image] if self.shape_of else 0]


def pack(header: Header) -> bytes:
    """The beginning of a file, up to the first checksum."""
    text = json.dumps(list(asdict(header).values()), ensure_ascii=False, separators=(",", ":"))
    packed = lzma.compress(text.encode(), format=lzma.FORMAT_ALONE, preset=9)
    return MAGIC + struct.pack("<HI", VERSION, len(packed)) + packed


def write(path: Path, header: Header, blocks: Sequence[bytes]) -> int:
    """Write the file, whole or not at all; returns its bytes."""
    parts = [pack(header)]
    parts.append(_digest(parts[0]))
    for block in blocks:
        framed = struct.pack("<I", len(block)) + block
        parts += [framed, _digest(parts[-1] + framed)]
    data = b"".join(parts)
    replace_file(path, data)
    return len(data)


def read(path: Path) -> tuple[Header, list[bytes]]:
    """The header and the blocks, every byte checked.

    Raises:
        ValueError: it is no such file, or of another version.
        DamagedError: it is damaged or cut short; says where.
    """
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path}: does not begin as a file of `selfsup compress` does; expected such a file, whole")
    at = len(MAGIC)
    if len(data) < at + 6:
        raise DamagedError(f"{path}: cut short after {len(data)} bytes, in its header")
    version, length = struct.unpack_from("<HI", data, at)
    if version != VERSION:
        raise ValueError(f"{path}: written in version {version} of the format, but this selfsup reads version {VERSION}")
    at += 6 + length
    digest = _checked(path, "its header", data[:at], data[at : at + DIGEST])
    header = _header(path, data[at - length : at])
    at += DIGEST
    blocks = []
    for number in range(1, len(header.blocks) + 1):
        (length,) = struct.unpack("<I", data[at : at + 4].ljust(4, b"\xff"))
        framed = data[at : at + 4 + length]
        at += 4 + length
        digest = _checked(path, f"block {number} of {len(header.blocks)}", digest + framed, data[at : at + DIGEST])
        blocks.append(framed[4:])
        at += DIGEST
    if at != len(data):
        raise DamagedError(f"{path}: {len(data) - at} bytes too many at its end")
    return header, blocks


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def _checked(path: Path, what: str, data: bytes, digest: bytes) -> bytes:
    if len(digest) < DIGEST:
        raise DamagedError(f"{path}: cut short or damaged, {what} goes beyond its end")
    if _digest(data) != digest:
        raise DamagedError(f"{path}: damaged, {what} does not match its checksum")
    return digest


def _header(path: Path, packed: bytes) -> Header:
    """The header of a file that is what was written; by whom is another question, so its numbers are looked at."""
    try:
        text = lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed, LARGEST_HEADER)
        header = Header(*json.loads(text))
        images = len(header.names)
        sane = (
            isinstance(header.run, str)
            and all(isinstance(name, str) for name in header.names)
            and 2 <= header.codes <= MOST_CODES
            and header.channels >= 1
            and (not header.table or (len(header.table) == header.codes and min(header.table) >= 0 and sum(header.table) == 1 << 16))
            and all(
                len(shape) == 4 and min(shape) >= 1 and max(shape[0] * shape[1], shape[2] * shape[3]) <= MOST_PIXELS
                for shape in header.shapes
            )
            and (len(header.shape_of) == images or (not header.shape_of and (len(header.shapes) == 1 or not images)))
            and all(0 <= number < len(header.shapes) for number in header.shape_of)
            and sum(header.blocks) == images
            and all(count >= 1 for count in header.blocks)
        )
    except (ValueError, TypeError, lzma.LZMAError, EOFError) as error:
        raise DamagedError(f"{path}: its header cannot be read ({error})") from None
    if not sane:
        raise DamagedError(f"{path}: its header contradicts itself")
    return header
