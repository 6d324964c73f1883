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
MOST_UNLIKE = 1 << 22


def rounds_of_pairs(key: U64, number: I64) -> Iterator[I64]:
    """Candidates [P, 2] among texts of one band (or of one bucket), the lower number first; in rounds, so that a
    caller may leave out a pair that an earlier round has already joined. Numbers must ascend."""
    order = _in_buckets(key)
    key, number = key[order], number[order]
    begins = np.ones(len(key), bool)
    begins[1:] = key[1:] != key[:-1]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(key)), 0))
    other = np.flatnonzero(~begins)
    yield np.stack([number[first[other]], number[other]], axis=1)
    for ahead in range(1, NEIGHBOURS + 1):
        earlier = np.flatnonzero((first[ahead:] == first[:-ahead]) & ~begins[:-ahead])
        yield np.stack([number[earlier], number[earlier + ahead]], axis=1)


def _in_buckets(key: U64) -> I64:
    """The places of keys that occur twice or more, by key, and among equal ones in order."""
    order = np.flatnonzero(key != NO_KEY)
    order = order[np.argsort(key[order])]  # a stable sort of all would take several times as long
    same = key[order[1:]] == key[order[:-1]]
    shared = np.zeros(len(order), bool)
    shared[1:] = same
    shared[:-1] |= same
    order = order[shared]
    return order[np.lexsort((order, key[order]))]


class Unlike:
    """Pairs that were compared and are not alike: another band need not compare them again.

    8 bytes a pair; of more than about MOST_UNLIKE some are forgotten, which costs nothing but time.
    """

    def __init__(self, documents: int) -> None:
        self._documents = documents
        self._known, self._new = np.zeros(0, np.int64), [np.zeros(0, np.int64)]
        self._held = 0

    def add(self, pair_P2: I64) -> None:
        if self._held < MOST_UNLIKE:
            self._new.append(self._code(pair_P2))
            self._held += len(pair_P2)

    def next_band(self) -> None:
        """In one band no pair comes twice, so they are sorted in only now."""
        new = np.concatenate(self._new)
        if len(self._known) + len(new) > MOST_UNLIKE:
            self._known = new[:0]
        self._known, self._new, self._held = np.sort(np.concatenate([self._known, new])), [new[:0]], 0

    def without(self, pair_P2: I64) -> I64:
        """Those that were not compared in an earlier band."""
        code = self._code(pair_P2)
        place = np.searchsorted(self._known, code)
        place[place == len(self._known)] = 0
        return pair_P2[self._known[place] != code] if len(self._known) else pair_P2

    def _code(self, pair_P2: I64) -> I64:
        return pair_P2[:, 0] * self._documents + pair_P2[:, 1]


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
    """The share of both sets together that is in both; sorted, each once. 0.0 where one is empty."""
    if not len(one) or not len(other):
        return 0.0
    both = np.sort(np.concatenate([one, other]))
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)
