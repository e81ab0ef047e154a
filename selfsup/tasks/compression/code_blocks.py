"""Codes of images, entropy-coded in blocks: by how often each occurs in the set, or by what a run's prior expects of it.

Axes: n images, h and w of an image's map of codes, K codes.
"""

import zlib

import numpy as np
import torch

from selfsup.engine.checkpoint import DamagedError
from selfsup.models.pixelcnn import ExactPixelCNN
from selfsup.tasks.compression import container, rans

BLOCK_IMAGES, BLOCK_POSITIONS = 1024, 1 << 18
"""Of one block, unless a single image has more."""

TABLE_NUMBERS = 1 << 22
"""Probabilities of the prior that are in memory at a time."""


def alike(shapes: list[tuple[int, ...]]) -> list[list[int]]:
    """Numbers of the items of each shape."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        rows.setdefault(tuple(shape), []).append(i)
    return list(rows.values())


def blocks(maps: list[np.ndarray]) -> list[range]:
    """Which images go into each block."""
    parts, first, positions = [], 0, 0
    for i, codes in enumerate(maps):
        if i > first and (i - first == BLOCK_IMAGES or positions + codes.size > BLOCK_POSITIONS):
            parts.append(range(first, i))
            first, positions = i, 0
        positions += codes.size
    return [*parts, range(first, len(maps))]


def frequency_table(maps: list[np.ndarray], codebook_size: int) -> list[int]:
    """Frequencies of all codes in this set, or none where they would cost more than they save."""
    counts = sum((np.bincount(codes.ravel(), minlength=codebook_size) for codes in maps), np.zeros(codebook_size, np.int64))
    shares = rans.frequencies_of_counts(counts)
    used = counts > 0
    saved = float((counts[used] * np.log2(shares[used] * codebook_size / 2**rans.BITS)).sum()) / 8
    cost = len(zlib.compress(shares.astype("<u2").tobytes(), 9))
    return shares.tolist() if saved > cost else []


def encode(maps: list[np.ndarray], table: list[int], codebook_size: int, exact: ExactPixelCNN | None) -> bytes:
    """One block: a checksum of the codes, then the codes. With the prior, images of one shape go through their positions together."""
    codes = np.concatenate([codes.ravel() for codes in maps])
    if exact is None:
        shares = _shares(table, codebook_size)
        starts, frequencies = (np.cumsum(shares) - shares)[codes], shares[codes]
    else:
        found = [_expected(np.stack([maps[i] for i in rows]), exact) for rows in alike([codes.shape for codes in maps])]
        starts, frequencies = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _codes_digest(codes) + rans.encode(starts, frequencies, rans.lanes_for(len(codes)))


def decode(block: bytes, sizes: list[tuple[int, ...]], header: container.Header, exact: ExactPixelCNN | None) -> list[np.ndarray]:
    """The codes (h, w) of a block's images, whose sizes are given.

    Raises:
        DamagedError: it is cut short, or its codes are not those that were written.
    """
    lengths = [height * width for height, width in sizes]
    decoder = rans.Decoder(block[4:], rans.lanes_for(sum(lengths)))
    if exact is None:
        codes = decoder.take(sum(lengths), rans.find_in_one_table(_shares(header.table, header.codes)))
        maps = [part.reshape(size) for part, size in zip(np.split(codes, np.cumsum(lengths)[:-1]), sizes, strict=True)]
    else:
        maps = [np.empty(0, np.int64)] * len(sizes)
        for rows in alike(sizes):
            written = torch.zeros(len(rows), *sizes[rows[0]], dtype=torch.int64)
            for i, j, logits in exact.walk(written):
                find = rans.find_in_rows(rans.frequencies_of_logits(logits.numpy()))
                written[:, i, j] = torch.from_numpy(decoder.take(len(rows), find))
            for i, codes in zip(rows, written.numpy(), strict=True):
                maps[i] = codes
    decoder.check()
    if _codes_digest(np.concatenate([codes.ravel() for codes in maps])) != block[:4]:
        raise DamagedError("its codes are not those that were written; the prior computes otherwise here than where it was written")
    return maps


def _shares(table: list[int], codebook_size: int) -> np.ndarray:
    return np.array(table) if table else rans.frequencies_of_counts(np.ones(codebook_size, np.int64))


def _codes_digest(codes: np.ndarray) -> bytes:
    return zlib.crc32(codes.astype("<u2").tobytes()).to_bytes(4, "little")


def _expected(codes: np.ndarray, exact: ExactPixelCNN) -> tuple[np.ndarray, np.ndarray]:
    """Start and frequency of each code (n, h, w) under the prior, in the order of positions, at each position all n images."""
    n, height, width = codes.shape
    starts, frequencies = np.empty((2, height * width, n), np.int64)
    step = max(1, TABLE_NUMBERS // (height * width * exact.embedding.shape[0]))
    for first in range(0, n, step):
        part = codes[first : first + step]
        logits = exact.logits(torch.from_numpy(part)).flatten(0, 2).numpy()
        shares = rans.frequencies_of_logits(logits)
        rows, symbols = np.arange(len(shares)), part.ravel()
        mine = shares[rows, symbols]
        starts[:, first : first + step] = (shares.cumsum(axis=1)[rows, symbols] - mine).reshape(len(part), -1).T
        frequencies[:, first : first + step] = mine.reshape(len(part), -1).T
    return starts.ravel(), frequencies.ravel()
