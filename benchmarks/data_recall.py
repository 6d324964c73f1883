"""Recall and precision of near-deduplication against brute force: every pair's Jaccard similarity, by sets of Python.

    python benchmarks/data_recall.py [--megabytes 3] [--data FOLDER]

True pairs are those at or over the threshold. Recall: the share of them that the search put into one
cluster.
Precision: of the pairs inside of clusters, the share that brute force joins too, directly or by a chain of true pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from itertools import combinations
from pathlib import Path

from data_material import SHINGLE_WORDS, WORD, make_documents

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=3)
    parser.add_argument("--data", default=os.environ.get("GROUNDUP_DATA"))
    options = parser.parse_args()
    if not options.data:
        print("Skipped: GROUNDUP_DATA names no folder of real data, and neither does --data.")
        return
    with tempfile.TemporaryDirectory() as folder:
        documents = make_documents(Path(options.data) / "pretrain", Path(folder), options.megabytes)
        with documents.open(encoding="utf-8") as file:
            sets = [shingled(json.loads(line)["text"]) for line in file]
        print(f"{len(sets):,} documents, {len(sets) * (len(sets) - 1) // 2:,} pairs")
        similar = brute_force(sets, min(THRESHOLDS))
        for threshold in THRESHOLDS:
            measured(
                documents,
                Path(folder),
                threshold,
                {p for p, s in similar.items() if s >= threshold},
                len(sets),
            )


def measured(documents: Path, folder: Path, threshold: float, true: set[tuple[int, int]], count: int) -> None:
    import numpy as np

    from groundup.config.schema import NearDuplicateSettings
    from groundup.data.dedup import find_near_duplicates
    from groundup.data.dedup.clusters import Clusters

    found = find_near_duplicates(documents, NearDuplicateSettings(threshold=threshold), folder / "scratch")
    clusters = [
        json.loads(line)["members"] for line in found.clusters.read_text(encoding="utf-8").splitlines()
    ]
    together = {pair for members in clusters for pair in combinations([each["id"] for each in members], 2)}
    joined = Clusters(np.zeros(count, np.int64))
    joined.join(np.array(sorted(true)).reshape(-1, 2))
    whole = {pair for members in joined.members() for pair in combinations(members.tolist(), 2)}
    print(
        f"threshold {threshold}: {len(true):,} true pairs, recall {len(true & together) / max(len(true), 1):.4f}, "
        f"precision {len(together & whole) / max(len(together), 1):.4f}, {len(found.dropped):,} documents dropped"
    )


def shingled(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.casefold())
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def brute_force(sets: list[set[tuple[str, ...]]], least: float) -> dict[tuple[int, int], float]:
    """Every pair at or over `least`, with its similarity."""
    similar = {}
    for (a, one), (b, other) in combinations(enumerate(sets), 2):
        if min(len(one), len(other)) < least * max(len(one), len(other)):
            continue
        common = len(one & other)
        if common >= least * (len(one) + len(other) - common):
            similar[a, b] = common / (len(one) + len(other) - common)
    return similar


if __name__ == "__main__":
    main()
