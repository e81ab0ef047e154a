"""The entropy coder: what is decoded is what was encoded, whatever the frequencies, and it takes the bits that they promise."""

import numpy as np
import pytest

from selfsup.engine.checkpoint import DamagedError
from selfsup.tasks.compression import rans


def coded(symbols: np.ndarray, shares: np.ndarray, lanes: int) -> bytes:
    return rans.encode((np.cumsum(shares) - shares)[symbols], shares[symbols], lanes)


@pytest.mark.parametrize("symbols", [0, 1, 2, 7, 8, 9, 1000])
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("weights", [[1, 1], [1, 60000, 3], [5], list(range(1, 500))])
def test_symbols_come_back(symbols: int, lanes: int, weights: list[int]) -> None:
    draw = np.random.default_rng(0)
    counts = np.array(weights, np.int64)
    shares = rans.frequencies_of_counts(counts)
    values = draw.choice(len(counts), symbols, p=counts / counts.sum())
    decoder = rans.Decoder(coded(values, shares, lanes), lanes)
    assert np.array_equal(decoder.take(symbols, rans.find_in_one_table(shares)), values)
    decoder.check()


@pytest.mark.parametrize("symbols", [1, 2, 9])
def test_the_rarest_symbol_fills_a_lane_to_its_brim(symbols: int) -> None:
    shares, values = np.array([1, 2**16 - 1]), np.zeros(symbols, np.int64)
    decoder = rans.Decoder(coded(values, shares, 1), 1)
    assert np.array_equal(decoder.take(symbols, rans.find_in_one_table(shares)), values)
    decoder.check()


def test_it_does_not_matter_in_which_pieces_they_are_read() -> None:
    draw = np.random.default_rng(0)
    shares = rans.frequencies_of_counts(np.array([3, 1, 9], np.int64))
    values = draw.choice(3, 100)
    decoder = rans.Decoder(coded(values, shares, 8), 8)
    pieces = [decoder.take(n, rans.find_in_one_table(shares)) for n in (1, 6, 1, 13, 0, 79)]
    assert np.array_equal(np.concatenate(pieces), values)
    decoder.check()


def test_each_symbol_may_have_frequencies_of_its_own() -> None:
    draw = np.random.default_rng(0)
    shares = rans.frequencies_of_logits(draw.integers(-3000, 3000, (200, 30)))
    values = draw.choice(30, 200)
    rows = np.arange(200)
    starts = (shares.cumsum(axis=1) - shares)[rows, values]
    decoder = rans.Decoder(rans.encode(starts, shares[rows, values], 4), 4)
    assert np.array_equal(decoder.take(150, rans.find_in_rows(shares[:150])), values[:150])
    assert np.array_equal(decoder.take(50, rans.find_in_rows(shares[150:])), values[150:])
    decoder.check()


def test_the_bits_are_those_of_shannon() -> None:
    draw = np.random.default_rng(0)
    chances = np.array([0.6, 0.3, 0.09, 0.01])
    values = draw.choice(4, 100_000, p=chances)
    counts = np.bincount(values)
    entropy = -float((counts * np.log2(counts / counts.sum())).sum()) / 8
    size = len(coded(values, rans.frequencies_of_counts(counts), 16)) - 16 * rans.LANE_BYTES
    assert abs(size / entropy - 1) < 0.002


def test_shares_are_whole_and_whole_together() -> None:
    draw = np.random.default_rng(0)
    counts = np.array([0, 1, 10**12, 5, 0], np.int64)
    shares = rans.frequencies_of_counts(counts)
    assert shares.sum() == 2**16
    assert [bool(s) for s in shares] == [False, True, True, True, False]
    logits = draw.integers(-2000, 2000, (50, 300))
    shares = rans.frequencies_of_logits(logits)
    assert bool((shares.sum(axis=1) == 2**16).all())
    assert int(shares.min()) >= 1
    softmax = np.exp((logits - logits.max(axis=1, keepdims=True)) / 256)
    softmax /= softmax.sum(axis=1, keepdims=True)
    assert float(np.abs(shares / 2**16 - softmax).max()) < 0.01
    assert int(rans.frequencies_of_logits(np.array([[10**6, -(10**6)]]))[0, 1]) == 1


def test_damage_is_seen() -> None:
    draw = np.random.default_rng(0)
    shares = rans.frequencies_of_counts(np.array([3, 1, 9], np.int64))
    data = coded(draw.choice(3, 1000, p=[0.3, 0.1, 0.6]), shares, 4)

    def read_all(data: bytes) -> None:
        decoder = rans.Decoder(data, 4)
        decoder.take(1000, rans.find_in_one_table(shares))
        decoder.check()

    for broken in (data[:-2], data + b"\0\0", data[:-1], data[:3], data[:-1] + bytes([data[-1] ^ 8])):
        with pytest.raises(DamagedError):
            read_all(broken)
