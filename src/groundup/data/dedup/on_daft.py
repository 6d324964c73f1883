"""The same search as a query of Daft, on this machine or on Ray.

Shingles, keys, rounds of pairs and the comparison are the embedded engine's own functions. Daft deals them to its
workers, groups by key, and removes pairs that came up twice; joining the pairs that are alike to clusters is left to
this machine. Every worker reads the documents at the same path: on several machines, that of a shared file system.

The query runs in a process of its own, since Daft chooses between this machine and Ray once for a process, and what
Ray has started ends with it.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.dedup.blocks import Block, blocks_of, read_block
from groundup.data.dedup.candidates import Comparison, rounds_of_pairs
from groundup.data.dedup.clusters import CLUSTERS_FILE, Clusters, NearDuplicates, settle
from groundup.data.dedup.minhash import NO_KEY, Bands, band_keys, bands_for
from groundup.data.dedup.shingles import I64, U64, shingles_of
from groundup.data.workers import end_with_parent
from groundup.errors import UserError

PAIRS_AT_ONCE = 1024
MOST_PARTITIONS = 1024
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1", "DAFT_PROGRESS_BAR": "0"}
"""No reports of use to their makers, and no bars beside ours. Read when they are imported."""
DOCUMENT = {"key": np.uint64, "id": np.int64, "at": np.int64}
EDGE = ("first", "second", "first_at", "second_at")


def search(
    comparison: Comparison,
    scratch: Path,
    processes: int,
    on_documents: Callable[[int], object],
    ray: bool,
    address: str | None,
) -> NearDuplicates:
    """Ask Daft for the pairs that are alike, then settle which documents stay. About 100 bytes of memory a pair."""
    for package in ("daft", *(["ray"] if ray else [])):
        _require(package)
    blocks = list(blocks_of(comparison.documents))
    documents = sum(block.lines for block in blocks)
    edges = (
        _in_a_process(_alike, comparison, blocks, processes, ray, address)
        if blocks
        else np.zeros((0, 4), int)
    )
    on_documents(documents)
    clusters = Clusters(np.zeros(documents, np.int64))
    clusters.join(edges[:, :2])
    offset_of = dict(zip(edges[:, :2].ravel().tolist(), edges[:, 2:].ravel().tolist()))

    def offsets(number: I64) -> I64:
        return np.array([offset_of[each] for each in number.tolist()], np.int64)

    return settle(clusters, comparison.documents, offsets, scratch / CLUSTERS_FILE)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"The package {package} is not installed.",
            why=f"near_duplicates asks for the engine {'ray' if package == 'ray' else 'daft'}.",
            fix='Run: pip install "groundup[daft]", or set engine: embedded, which finds the same.',
        )


def _in_a_process(function: Callable[..., I64], *given: Any) -> I64:
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
            return pool.submit(function, *given).result()
    except BrokenProcessPool as error:
        raise UserError(
            "The process that ran Daft ended before its work was done.",
            why="Most likely the system stopped it because memory ran out.",
            fix="Close other programs, or set engine: embedded, which finds the same in less memory.",
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _alike(
    comparison: Comparison, blocks: list[Block], processes: int, ray: bool, address: str | None
) -> I64:
    """Pairs that are alike and where their lines begin, [P, 4] in the order of EDGE, sorted."""
    daft = _started(processes, ray, address)
    column, kinds = daft.col, daft.DataType
    document = kinds.struct({"key": kinds.uint64(), "id": kinds.int64(), "at": kinds.int64()})
    edge = kinds.struct(dict.fromkeys(EDGE, kinds.int64()))
    bands = bands_for(comparison.threshold)

    @daft.func.batch(return_dtype=kinds.list(document))
    def sign(first: Any, lines: Any, offset: Any, size: Any) -> Any:
        rows = zip(*(each.to_pylist() for each in (first, lines, offset, size)))
        return _lists([_signed(comparison, bands, Block(*row)) for row in rows], DOCUMENT)

    @daft.func.batch(return_dtype=kinds.list(edge))
    def pair(bucket: Any) -> Any:
        return _lists([_paired(each) for each in bucket.to_pylist()], dict.fromkeys(EDGE, np.int64))

    @daft.func.batch(return_dtype=kinds.bool(), batch_size=PAIRS_AT_ONCE)
    def alike(first_at: Any, second_at: Any) -> Any:
        offset_P2 = np.stack(
            [np.asarray(each.to_pylist(), np.int64) for each in (first_at, second_at)], axis=1
        )
        return comparison.alike(offset_P2).tolist()

    names = ("first", "lines", "offset", "bytes")
    table = daft.from_pydict({name: [getattr(block, name) for block in blocks] for name in names})
    if ray:  # else Daft cuts by itself
        table = table.into_partitions(min(len(blocks), MOST_PARTITIONS))
    signed = table.select(sign(*map(column, names)).alias("document")).explode("document")
    keyed = signed.select(column("document")["key"].alias("key"), column("document"))
    buckets = keyed.groupby("key").agg(column("document").list_agg().alias("bucket"))
    shared = buckets.where(column("bucket").list_count("all") > 1)
    pairs = shared.select(pair(column("bucket")).alias("edge")).explode("edge")
    pairs = pairs.select(*(column("edge")[name].alias(name) for name in EDGE)).distinct()
    try:
        found = pairs.where(alike(column("first_at"), column("second_at"))).to_pydict()
    except Exception as error:  # Ray's own errors cannot be sent to another process
        raise UserError(
            "Daft could not finish the search for near duplicates.",
            where=str(comparison.documents),
            why=str(error).strip()[-2000:],
            fix="Set engine: embedded, which finds the same, or repair what it says.",
        ) from None
    edges = np.array([found[name] for name in EDGE], np.int64).T.reshape(-1, 4)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _started(processes: int, ray: bool, address: str | None) -> Any:
    """Daft with its runner set.

    Raises:
        UserError: Ray does not start, or does not answer at the address.
    """
    import daft

    if not ray:
        daft.set_runner_native(num_threads=processes)
        return daft
    import ray as cluster

    try:
        if address:
            cluster.init(address=address, log_to_driver=False)
        else:
            cluster.init(num_cpus=processes, include_dashboard=False, log_to_driver=False)
        daft.set_runner_ray(address=address, noop_if_initialized=True)
    except Exception as error:
        raise UserError(
            "Ray could not be reached." if address else "Ray could not be started on this machine.",
            where=address or "",
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            fix="Check ray_address, or leave it out for a Ray of this machine."
            if address
            else "Set engine: daft or embedded: they find the same without Ray.",
        ) from None
    return daft


def _signed(comparison: Comparison, bands: Bands, block: Block) -> dict[str, U64 | I64]:
    """A row for each key of each document of a block."""
    texts, offset = read_block(comparison.documents, block)
    key_BD = band_keys(shingles_of(texts, comparison.words), bands)
    number = np.arange(block.first, block.first + block.lines)
    rows = key_BD.ravel() != NO_KEY
    return {
        "key": key_BD.ravel()[rows],
        "id": np.tile(number, bands.count)[rows],
        "at": np.tile(offset, bands.count)[rows],
    }


def _paired(bucket: list[dict[str, int]]) -> dict[str, I64]:
    """A row for each candidate of a bucket."""
    at = {each["id"]: each["at"] for each in bucket}
    number = np.array(sorted(at), np.int64)
    rounds = rounds_of_pairs(np.ones(len(number), np.uint64), number)
    pair_P2 = np.concatenate(list(rounds))
    at_P2 = np.array([at[each] for each in pair_P2.ravel().tolist()], np.int64).reshape(-1, 2)
    return dict(zip(EDGE, (*pair_P2.T, *at_P2.T)))


def _lists(tables: list[dict[str, Any]], empty: Mapping[str, type]) -> Any:
    """One list of structs for each table, as Arrow; `empty` has the columns that a batch without rows needs as well."""
    import pyarrow

    lengths = [len(next(iter(table.values()))) for table in tables]
    columns = [
        np.concatenate([np.zeros(0, dtype), *(table[name] for table in tables)])
        for name, dtype in empty.items()
    ]
    structs = pyarrow.StructArray.from_arrays([pyarrow.array(each) for each in columns], list(empty))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pyarrow.LargeListArray.from_arrays(pyarrow.array(ends, pyarrow.int64()), structs)
