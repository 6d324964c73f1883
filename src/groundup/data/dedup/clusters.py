"""Pairs joined to clusters, and which document of each stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.dedup.blocks import read_at
from groundup.data.dedup.shingles import I64
from groundup.store.files import to_json

BEGINNING_CHARS = 160
TOLD_AT_ONCE = 256
CLUSTERS_FILE = "clusters.jsonl"


@dataclass(frozen=True)
class NearDuplicates:
    """Which of D documents stay. Of each cluster it is the longest, of equally long ones the first."""

    keep_D: NDArray[np.bool_]
    dropped: I64
    """Numbers of the documents that go, ascending."""
    kept_for: I64
    """For each dropped one the number of the document that stays in its place."""
    clusters: Path
    """JSON lines: the number kept, and number, characters and beginning of every member."""

    @property
    def kept(self) -> I64:
        """Numbers of the documents that stay, ascending."""
        return np.flatnonzero(self.keep_D)


class Clusters:
    """Union-find over documents by number; a cluster's root is its lowest number."""

    def __init__(self, parent_D: I64) -> None:
        parent_D[:] = np.arange(len(parent_D))
        self.parent_D = parent_D

    def roots(self, number: I64) -> I64:
        """The root of each."""
        root = self.parent_D[number]
        while not np.array_equal(above := self.parent_D[root], root):
            root = above
        return root

    def apart(self, pair_P2: I64) -> NDArray[np.bool_]:
        """Which pairs are not in the same cluster yet."""
        return self.roots(pair_P2[:, 0]) != self.roots(pair_P2[:, 1])

    def join(self, pair_P2: I64) -> None:
        """Both of each pair are of one cluster from now on."""
        parent = self.parent_D
        for pair in pair_P2.tolist():
            a, b = (self._root(number) for number in pair)
            parent[max(a, b)] = min(a, b)

    def _root(self, number: int) -> int:
        parent = self.parent_D
        while (above := int(parent[number])) != number:
            parent[number] = parent[above]  # halves the way for the next who asks
            number = int(parent[number])
        return number

    def members(self) -> list[I64]:
        """The numbers of each cluster of two or more, ascending, by the lowest."""
        below = np.flatnonzero(self.parent_D != np.arange(len(self.parent_D)))
        root = self.roots(below)
        number, root = np.concatenate([below, root]), np.concatenate([root, root])
        root_and_number = np.unique(np.stack([root, number], axis=1), axis=0)
        starts = np.flatnonzero(np.diff(root_and_number[:, 0], prepend=-1))
        return np.split(root_and_number[:, 1], starts[1:]) if len(starts) else []


Told = tuple[int, str]
"""A document's characters and its beginning."""


def tell(job: tuple[Path, I64]) -> list[Told]:
    """What the documents are whose lines begin at these bytes."""
    documents, offset = job
    return [(len(text), text[:BEGINNING_CHARS]) for text in read_at(documents, offset)]


def settle(
    clusters: Clusters,
    documents: Path,
    offsets: Callable[[I64], I64],
    written: Path,
    mapped: Callable[[Callable[[Any], list[Told]], Iterable[Any]], Iterable[list[Told]]] = map,
) -> NearDuplicates:
    """Choose what stays of each cluster and write the clusters.

    offsets: tells where a document's line begins. mapped: as `map`, perhaps by other processes.
    """
    keep_D = np.ones(len(clusters.parent_D), bool)
    kept_for: dict[int, int] = {}
    found = clusters.members()
    every = np.concatenate([np.zeros(0, np.int64), *found])
    pieces = (every[start : start + TOLD_AT_ONCE] for start in range(0, len(every), TOLD_AT_ONCE))
    told = chain.from_iterable(mapped(tell, ((documents, offsets(piece)) for piece in pieces)))
    with written.open("w", encoding="utf-8", newline="\n") as file:
        for number in found:
            members = [
                {"id": each, "characters": characters, "text": beginning}
                for each, (characters, beginning) in zip(number.tolist(), told)
            ]
            stays = int(
                max(members, key=lambda member: member["characters"])["id"]
            )  # the first of the longest
            kept_for |= {each: stays for each in number.tolist() if each != stays}
            file.write(to_json({"kept": stays, "members": members}) + "\n")
    dropped = np.array(sorted(kept_for), np.int64)
    keep_D[dropped] = False
    return NearDuplicates(
        keep_D, dropped, np.array([kept_for[each] for each in dropped.tolist()], np.int64), written
    )
