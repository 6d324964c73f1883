"""Which pairs are compared, and comparing them exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.data.dedup.blocks import BLOCK_BYTES, read_at
from groundup.data.dedup.minhash import NO_KEY
from groundup.data.dedup.shingles import I64, U64, shingles_of

NEIGHBOURS = 7
"""In a bucket each text is compared with the bucket's first and with so many that follow it in reading order: all with
all up to 8 texts, and no more than 8 comparisons a text in a bucket of any size."""


def rounds_of_pairs(key: U64, number: I64) -> Iterator[I64]:
    """Candidates [P, 2] among texts of one band (or of one bucket), the lower number first; in rounds, so that a
    caller may leave out a pair that an earlier round has already joined. Numbers must ascend."""
    inside = key != NO_KEY
    order = np.argsort(key[inside], kind="stable")
    key, number = key[inside][order], number[inside][order]
    begins = np.ones(len(key), bool)
    begins[1:] = key[1:] != key[:-1]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(key)), 0))
    other = np.flatnonzero(~begins)
    yield np.stack([number[first[other]], number[other]], axis=1)
    for ahead in range(1, NEIGHBOURS + 1):
        earlier = np.flatnonzero((first[ahead:] == first[:-ahead]) & ~begins[:-ahead])
        yield np.stack([number[earlier], number[earlier + ahead]], axis=1)


@dataclass(frozen=True)
class Comparison:
    """What is the same for all comparisons of a search."""

    documents: Path
    words: int
    threshold: float

    def alike(self, offset_P2: I64) -> NDArray[np.bool_]:
        """[P]: whether the similarity of the texts that begin at these bytes reaches the threshold."""
        offset, index_P2 = np.unique(offset_P2, return_inverse=True)
        sets = self._sets(offset)
        pairs = index_P2.reshape(-1, 2).tolist()
        return np.fromiter((jaccard(sets[a], sets[b]) >= self.threshold for a, b in pairs), bool, len(pairs))

    def _sets(self, offset: I64) -> list[U64]:
        """The shingles of each text, once each, sorted."""
        sets: list[U64] = []
        held: list[str] = []
        for text in read_at(self.documents, offset):
            held.append(text)
            if sum(map(len, held)) > BLOCK_BYTES // 4:
                sets += self._sets_of(held)
                held = []
        return sets + self._sets_of(held)

    def _sets_of(self, texts: list[str]) -> list[U64]:
        shingles = shingles_of(texts, self.words)
        ends = shingles.first_D1.tolist()
        return [_once(shingles.hash_N[a:b]) for a, b in pairwise(ends)]


def _once(value: U64) -> U64:
    """Sorted, each once. `numpy.unique` hashes before it sorts, which took longer here."""
    value = np.sort(value)
    new = np.ones(len(value), bool)
    new[1:] = value[1:] != value[:-1]
    return value[new]


def jaccard(one: U64, other: U64) -> float:
    """Sorted, each once. `numpy.unique` hashes before it sorts, which took longer here."""
    if not len(one) or not len(other):
        return 0.0
    both = np.sort(np.concatenate([one, other]))
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)
