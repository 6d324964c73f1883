"""Which records make up which step: a pure function of (seed, step), so resuming needs nothing but the step.

Neither the order nor where each record begins is held in memory: the order is computed where it is needed, and of the
beginnings every thousandth is kept. So a stream costs its array of sizes and 8 bytes a thousand records.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

BLOCK = 1024
"""Records between two beginnings that are kept."""

BLOCKS_AT_ONCE = 256
ROUNDS = 8
LEAST_BITS = 4


class Stream:
    """Epoch after epoch in a new order, cut into steps of `batch` (records or tokens, as `sizes` counts).

    Steps run on across the end of an epoch, so every step is full, and each record is seen once an epoch.
    """

    def __init__(self, sizes: np.ndarray, batch: int, seed: int) -> None:
        """sizes: of integers, kept as it is."""
        assert len(sizes) > 0 and batch > 0 and sizes.min() > 0
        self._sizes = sizes
        self._total = int(sizes.sum(dtype=np.int64))
        self._batch = batch
        self._seed = seed
        self._begins = lru_cache(maxsize=2)(self._block_begins)
        self._keys = lru_cache(maxsize=2)(self._round_keys)

    def records_of(self, step: int) -> np.ndarray:
        """Indices of the records that begin within step number `step` (from 0); empty only if a record is huge."""
        first, end = step * self._batch, (step + 1) * self._batch
        parts = []
        for epoch in range(first // self._total, (end - 1) // self._total + 1):
            parts.append(self._between(epoch, first - epoch * self._total, end - epoch * self._total))
        return np.concatenate(parts)

    def steps_for(self, epochs: float) -> int:
        """Steps that see every record `epochs` times."""
        return max(1, math.ceil(epochs * self._total / self._batch - 1e-9))

    def epoch_at(self, step: int) -> float:
        """Passes over the records after `step` steps."""
        return step * self._batch / self._total

    def _between(self, epoch: int, first: int, end: int) -> np.ndarray:
        """The records that begin in [first, end) on the epoch's line of sizes."""
        begins = self._begins(epoch)
        low = max(0, int(np.searchsorted(begins, first, side="right")) - 1)
        high = int(np.searchsorted(begins, end))
        order = self._order(epoch, low, high)
        sizes = self._sizes[order].astype(np.int64)
        own = begins[low] + np.cumsum(sizes) - sizes
        return order[(own >= first) & (own < end)]

    def _block_begins(self, epoch: int) -> np.ndarray:
        """Where every `BLOCK`th record begins, int64."""
        blocks = -(-len(self._sizes) // BLOCK)
        totals = []
        for low in range(0, blocks, BLOCKS_AT_ONCE):
            sizes = self._sizes[self._order(epoch, low, low + BLOCKS_AT_ONCE)]
            totals.append(np.add.reduceat(sizes, np.arange(0, len(sizes), BLOCK), dtype=np.int64))
        return np.cumsum(np.concatenate([[0], *totals[:-1], totals[-1][:-1]]))

    def _order(self, epoch: int, low: int, high: int) -> np.ndarray:
        """The records at the places of blocks low to high: the epoch's permutation, computed for these alone."""
        count = len(self._sizes)
        places = np.arange(low * BLOCK, min(high * BLOCK, count), dtype=np.uint64)
        return permuted(places, count, self._keys(epoch)).astype(np.int64)

    def _round_keys(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).integers(2**64, size=ROUNDS, dtype=np.uint64)


def permuted(places: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """Where a permutation of `count` numbers, chosen by `keys`, takes these, uint64.

    A Feistel network on the next power of two (Luby, Rackoff 1988, https://doi.org/10.1137/0217022), gone through again
    where it leads beyond `count` (cycle walking; Black, Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).
    """
    bits = max(LEAST_BITS, int(count - 1).bit_length())
    found = _feistel(places, bits, keys)
    while len(beyond := np.flatnonzero(found >= count)):
        found[beyond] = _feistel(found[beyond], bits, keys)
    return found


def _feistel(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    left_bits, right_bits = bits // 2, bits - bits // 2
    for key in keys:
        left = numbers >> np.uint64(right_bits)
        right = numbers & np.uint64(2**right_bits - 1)
        left ^= _mixed(right + key) & np.uint64(2**left_bits - 1)
        numbers = right << np.uint64(left_bits) | left
        left_bits, right_bits = right_bits, left_bits
    return numbers


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele and others 2014, https://doi.org/10.1145/2660193.2660195)."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
