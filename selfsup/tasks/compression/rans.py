"""An entropy coder: asymmetric numeral systems (Duda 2013, https://arxiv.org/abs/1311.2540), the range variant, many lanes at a time.

A lane is a whole number that grows by -log2(p) bits with each symbol and gives its low 16 bits away when it is full. Symbol k is on lane
k modulo the number of lanes; numpy moves all lanes together, and they share one stream of 16-bit words. Everything is a whole number, so
what is decoded is what was encoded, wherever it is decoded.

Axes: n symbols, K values that a symbol may have.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from selfsup.engine.checkpoint import DamagedError

BITS = 16
"""A probability is a multiple of 2^-BITS."""

LEAST = 1 << 24
"""What a lane holds at least between symbols, and at its start; less than LEAST << 16, so that 5 bytes hold it."""

LANE_BYTES = 5

EXPONENTS = np.rint(np.exp(-np.arange(16 * 256 + 1) / 256) * 2**30).astype(np.int64)
"""exp(-d / 256), as a multiple of 2^-30; 16.0 and more is nearly nothing."""


def lanes_for(symbols: int) -> int:
    """How many lanes so many symbols are worth: each costs 5 bytes, and fewer of them more time."""
    return min(256, max(1, symbols // 2048))


def frequencies_of_counts(counts: Int64[np.ndarray, "K"]) -> Int64[np.ndarray, "K"]:
    """Shares of 2^BITS, at least 1 for each value that occurs, 0 for the others."""
    present = counts > 0
    shares = np.where(present, 1 + counts * ((1 << BITS) - int(present.sum())) // max(1, int(counts.sum())), 0)
    shares[counts.argmax()] += (1 << BITS) - int(shares.sum())
    return shares


def frequencies_of_logits(logits: Int64[np.ndarray, "n K"]) -> Int64[np.ndarray, "n K"]:
    """Shares of 2^BITS of a softmax, at least 1 for each value; logits in units of 1 / 256, K at most 16384."""
    weights = EXPONENTS[np.minimum(logits.max(axis=1, keepdims=True) - logits, len(EXPONENTS) - 1)]
    shares = 1 + weights * ((1 << BITS) - logits.shape[1]) // weights.sum(axis=1, keepdims=True)
    rows = np.arange(len(shares))
    shares[rows, weights.argmax(axis=1)] += (1 << BITS) - shares.sum(axis=1)
    return shares


def encode(starts: Int64[np.ndarray, "n"], frequencies: Int64[np.ndarray, "n"], lanes: int) -> bytes:
    """Bytes from which a `Decoder` reads the symbols in the same order.

    Args:
        starts: of each symbol, the sum of the frequencies of all values before its own.
        frequencies: of each symbol, its share of 2^BITS, at least 1.
        lanes: see `lanes_for`.
    """
    starts, frequencies = starts.astype(np.uint64), frequencies.astype(np.uint64)
    state = np.full(lanes, LEAST, np.uint64)
    words: list[np.ndarray] = []
    for first in reversed(range(0, len(starts), lanes)):  # what is read first is written last
        start, frequency = starts[first : first + lanes], frequencies[first : first + lanes]
        x = state[: len(start)]
        full = x >= frequency * np.uint64(LEAST)
        words.append(x[full][::-1].astype(np.uint16))  # the low 16 bits
        x = np.where(full, x >> np.uint64(BITS), x)
        quotient, rest = np.divmod(x, frequency)
        state[: len(start)] = (quotient << np.uint64(BITS)) + rest + start
    head = state.astype("<u8").view(np.uint8).reshape(lanes, 8)[:, :LANE_BYTES].tobytes()
    return head + np.concatenate([*words, np.empty(0, np.uint16)])[::-1].astype("<u2").tobytes()


class Decoder:
    """Reads what `encode` wrote.

    Args:
        data: its bytes.
        lanes: as they were written.

    Raises:
        DamagedError: there are not even the lanes.
    """

    def __init__(self, data: bytes, lanes: int) -> None:
        head = LANE_BYTES * lanes
        if len(data) < head or (len(data) - head) % 2:
            raise DamagedError(f"expected {lanes} lanes of {LANE_BYTES} bytes and whole words, got {len(data)} bytes")
        padded = np.zeros((lanes, 8), np.uint8)
        padded[:, :LANE_BYTES] = np.frombuffer(data, np.uint8, head).reshape(lanes, LANE_BYTES)
        self.state = padded.view("<u8")[:, 0].astype(np.uint64)
        self.words = np.frombuffer(data, "<u2", offset=head).astype(np.uint64)
        self.read, self.word = 0, 0  # symbols and words so far

    def take(self, n: int, find: Callable[[slice, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Int64[np.ndarray, "{n}"]:
        """The next n symbols.

        Args:
            find: which of the n are asked for, and for each a number below 2^BITS -> the symbol that has it, its start and its frequency.

        Raises:
            DamagedError: the words are used up.
        """
        symbols, done, lanes = np.empty(n, np.int64), 0, len(self.state)
        while done < n:
            lane = self.read % lanes
            here = slice(done, min(n, done + lanes - lane))
            x = self.state[lane : lane + here.stop - done]
            low = x & np.uint64((1 << BITS) - 1)
            symbols[here], start, frequency = find(here, low.astype(np.int64))
            x = frequency.astype(np.uint64) * (x >> np.uint64(BITS)) + low - start.astype(np.uint64)
            empty = x < LEAST
            count = int(empty.sum())
            words = self.words[self.word : self.word + count]
            if len(words) < count:
                raise DamagedError("the coded symbols end too early")
            x[empty] = (x[empty] << np.uint64(BITS)) | words
            self.state[lane : lane + len(x)] = x
            self.word += count
            self.read += len(x)
            done = here.stop
        return symbols

    def check(self) -> None:
        """Raise DamagedError unless everything was read and every lane is at its start again."""
        if self.word != len(self.words) or not bool((self.state == LEAST).all()):
            raise DamagedError("the coded symbols do not end where they should")


def find_in_one_table(frequencies: Int64[np.ndarray, "K"]) -> Callable[[slice, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`find` for symbols that all have the same frequencies."""
    starts = np.cumsum(frequencies) - frequencies
    of_number = np.repeat(np.arange(len(frequencies)), frequencies)

    def find(_: slice, low: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        symbols = of_number[low]
        return symbols, starts[symbols], frequencies[symbols]

    return find


def find_in_rows(frequencies: Int64[np.ndarray, "n K"]) -> Callable[[slice, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`find` for symbols with frequencies of their own."""
    ends = frequencies.cumsum(axis=1)

    def find(here: slice, low: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mine, rows = ends[here], np.arange(len(low))
        symbols = (mine <= low[:, None]).sum(axis=1)
        frequency = frequencies[here][rows, symbols]
        return symbols, mine[rows, symbols] - frequency, frequency

    return find
