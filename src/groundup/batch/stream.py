"""Which records make up which step: a pure function of (seed, step), so resuming needs nothing but the step."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


class Stream:
    """Epoch after epoch in a new order, cut into steps of `batch` (records or tokens, as `sizes` counts).

    Steps run on across the end of an epoch, so every step is full, and each record is seen once an epoch.
    """

    def __init__(self, sizes: np.ndarray, batch: int, seed: int) -> None:
        assert len(sizes) > 0 and batch > 0 and sizes.min() > 0
        self._sizes = sizes.astype(np.int64)
        self._total = int(self._sizes.sum())
        self._batch = batch
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order of records, and where each begins on the epoch's line of sizes."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._sizes))
        sizes = self._sizes[order]
        return order, np.cumsum(sizes) - sizes

    def records_of(self, step: int) -> np.ndarray:
        """Indices of the records that begin within step number `step` (from 0); empty only if a record is huge."""
        first, end = step * self._batch, (step + 1) * self._batch
        parts = []
        for epoch in range(first // self._total, (end - 1) // self._total + 1):
            order, begins = self._epoch(epoch)
            low, high = np.searchsorted(begins, [first - epoch * self._total, end - epoch * self._total])
            parts.append(order[low:high])
        return np.concatenate(parts)

    def steps_for(self, epochs: float) -> int:
        """Steps that see every record `epochs` times."""
        return max(1, math.ceil(epochs * self._total / self._batch - 1e-9))

    def epoch_at(self, step: int) -> float:
        """Passes over the records after `step` steps."""
        return step * self._batch / self._total
