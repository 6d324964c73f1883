"""The search on one machine: signatures by several processes into files, one band in memory at a time."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup import console
from groundup.data.dedup.blocks import BLOCK_BYTES, Block, blocks_of, read_block
from groundup.data.dedup.candidates import Comparison, Unlike, rounds_of_pairs
from groundup.data.dedup.clusters import CLUSTERS_FILE, Clusters, NearDuplicates, settle
from groundup.data.dedup.minhash import Bands, band_keys, bands_for
from groundup.data.dedup.shingles import I64, U64, shingles_of
from groundup.data.workers import Workers
from groundup.errors import UserError
from groundup.store.atomic import TEMPORARY

DOCUMENTS_AT_ONCE = 1 << 22
"""So many keys of a band are sorted in memory at once: about 200 MB. More are taken in parts, by the keys' size."""
SPARE_BYTES = 64 << 20
BYTES_WORTH_A_PROCESS = 4 << 20
"""A process takes about a second to begin, in which another one signs and compares so much."""


@dataclass(frozen=True)
class Tables:
    """Files of numbers of a search, D documents long: 8 bytes a document for each band, and 16 more."""

    folder: Path
    documents: int
    bands: int
    open_files: dict[str, NDArray[np.generic]] = field(default_factory=dict, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "open_files": {}}  # worker processes open their own

    def create(self) -> None:
        """Take the room on the disk now: a full disk found later would end the process without a word.

        Raises:
            UserError: there is too little room.
            OSError: the files cannot be made.
        """
        needed = self.documents * 8 * (self.bands + 2) + SPARE_BYTES
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise UserError(
                "There is too little room on the disk to look for near duplicates.",
                where=str(self.folder),
                why=f"{needed / 1e6:,.0f} MB are needed for a while, and {free / 1e6:,.0f} MB are free.",
                fix="Free some space, or choose a folder on another disk.",
            )
        for name, rows in (("keys", self.bands), ("offsets", 1), ("parents", 1)):
            with (self.folder / name).open("wb") as file:
                size = max(rows * self.documents * 8, 1)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)

    @property
    def key_BD(self) -> U64:
        return self._open("keys", np.uint64).reshape(self.bands, self.documents)

    @property
    def offset_D(self) -> I64:
        return self._open("offsets", np.int64)

    @property
    def parent_D(self) -> I64:
        return self._open("parents", np.int64)

    def _open(self, name: str, dtype: type[np.generic]) -> NDArray:
        if name not in self.open_files:
            size = self.documents * (self.bands if name == "keys" else 1)
            mapped = np.memmap(self.folder / name, dtype, "r+", shape=(size,))
            self.open_files[name] = mapped.view(np.ndarray)  # single elements of a memmap are slow
        return self.open_files[name]


@dataclass(frozen=True)
class Signing:
    """One block's work: its keys and offsets go into the tables."""

    comparison: Comparison
    bands: Bands
    tables: Tables
    block: Block


def sign(job: Signing) -> int:
    """Returns the number of documents."""
    texts, offset = read_block(job.comparison.documents, job.block)
    rows = slice(job.block.first, job.block.first + job.block.lines)
    job.tables.key_BD[:, rows] = band_keys(shingles_of(texts, job.comparison.words), job.bands)
    job.tables.offset_D[rows] = offset
    return job.block.lines


def compare(job: tuple[Comparison, I64]) -> NDArray[np.bool_]:
    comparison, offset_P2 = job
    return comparison.alike(offset_P2)


def search(
    comparison: Comparison, scratch: Path, processes: int, on_documents: Callable[[int], object]
) -> NearDuplicates:
    """Sign all documents, then join the pairs of each band that are alike."""
    documents, bands = comparison.documents, bands_for(comparison.threshold)
    count = sum(block.lines for block in blocks_of(documents))
    most = math.ceil(documents.stat().st_size / BYTES_WORTH_A_PROCESS)
    with (
        tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=scratch, ignore_cleanup_errors=True) as folder,
        Workers(max(1, min(processes, most))) as workers,
    ):
        tables = Tables(Path(folder), count, bands.count)
        tables.create()
        jobs = (Signing(comparison, bands, tables, block) for block in blocks_of(documents))
        for lines in workers.map(sign, jobs):
            on_documents(lines)
        clusters, unlike = Clusters(tables.parent_D), Unlike(count)
        with console.progress("Comparing", unit="pair") as bar:
            for key_D in tables.key_BD:
                for pair_P2 in _pairs(key_D):
                    pair_P2 = unlike.without(pair_P2[clusters.apart(pair_P2)])
                    for piece_P2, alike in _compared(pair_P2, comparison, tables.offset_D, workers):
                        clusters.join(piece_P2[alike])
                        unlike.add(piece_P2[~alike])
                    bar.advance(len(pair_P2))
                unlike.next_band()
        offset_D, written = tables.offset_D, scratch / CLUSTERS_FILE
        return settle(clusters, documents, lambda number: offset_D[number], written, workers.map)


def _pairs(key_D: U64) -> Iterator[I64]:
    """The candidates of a band, in parts whose keys fit into memory; equal keys are in the same part."""
    parts = math.ceil(len(key_D) / DOCUMENTS_AT_ONCE)
    if parts <= 1:
        yield from rounds_of_pairs(key_D, np.arange(len(key_D)))
        return
    width = np.uint64((1 << 64) // parts + 1)
    for part in range(parts):
        number = np.concatenate(
            [
                start + np.flatnonzero(key_D[start : start + DOCUMENTS_AT_ONCE] // width == part)
                for start in range(0, len(key_D), DOCUMENTS_AT_ONCE)
            ]
        )
        yield from rounds_of_pairs(key_D[number], number)


def _compared(
    pair_P2: I64, comparison: Comparison, offset_D: I64, workers: Workers
) -> Iterator[tuple[I64, NDArray[np.bool_]]]:
    """The pairs in pieces of about a block's text, and which of them are alike."""
    pair_P2 = pair_P2[np.lexsort((pair_P2[:, 1], pair_P2[:, 0]))]
    end = comparison.documents.stat().st_size
    after = np.minimum(pair_P2 + 1, len(offset_D) - 1)
    size_P2 = np.where(pair_P2 + 1 < len(offset_D), offset_D[after], end) - offset_D[pair_P2]
    piece_P = np.cumsum(size_P2.sum(axis=1)) // BLOCK_BYTES
    pieces = np.split(pair_P2, np.flatnonzero(np.diff(piece_P)) + 1) if len(pair_P2) else []
    answers = workers.map(compare, ((comparison, offset_D[piece]) for piece in pieces))
    yield from zip(pieces, answers)
