"""Near duplicates: ours beside datatrove's four stages and datasketch's index, on the same documents and processes.

Each side reads the file and writes the documents that stay. Shingles of 5 words, bands and rows are the same on each
side. Recall: of planted pairs at or over the threshold, the share of which not both stay. Wrongly dropped: documents
that go without a planted partner at or over the threshold, of all that go.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_session import Session, compared, cut_into, growth, labelled
from table import Row, failed, memory

THRESHOLD = 0.8
BANDS, BAND_ROWS = 18, 6
"""What ours takes at that threshold; the peers are told."""
SCHEME = "affine32"
"""datasketch's fastest permutations."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


def rows(session: Session) -> Iterator[Row]:
    """1x, 2x, 4x of the input, then speed and memory beside each peer."""
    ours = yield from growth(session, "near-dedup", dedup_ours, processes=session.processes)
    if ours is None:
        return
    documents = session.documents()
    for name, function in (("datatrove", dedup_datatrove), ("datasketch", dedup_datasketch)):
        settings = f"{BANDS} bands of {BAND_ROWS}, 5-word shingles, {session.processes} processes"
        peer = labelled(name)
        theirs = session.run(function, documents=documents, processes=session.processes)
        if "error" in theirs:
            yield failed("near-dedup", peer, settings, theirs["error"], "MB/s")
            continue
        note = f"ours: {quality(ours, documents)}; {name}: {quality(theirs, documents)}"
        size = documents.stat().st_size / 1e6
        speeds = (size / ours["seconds"], size / theirs["seconds"])
        yield compared("near-dedup", peer, settings, "MB/s", *speeds, note)
        yield memory("near-dedup", peer, "", "GB, peak", ours["peak_bytes"], theirs["peak_bytes"])


def quality(side: dict[str, Any], documents: Path) -> str:
    """Recall and what was wrongly dropped, in words."""
    pairs = json.loads(documents.with_suffix(".pairs.json").read_text())
    dropped = set(side["dropped"])
    alike = [(a, b) for a, b, similarity in pairs if similarity >= THRESHOLD]
    hit = sum(a in dropped or b in dropped for a, b in alike)
    wrong = len(dropped - {each for pair in alike for each in pair})
    return (
        f"recall {hit / max(len(alike), 1):.4f} of {len(alike):,} pairs, "
        f"{wrong / max(len(dropped), 1):.4f} of {len(dropped):,} wrongly dropped"
    )


def dedup_ours(documents: Path, processes: int, folder: Path) -> dict[str, Any]:
    from groundup.config.schema import NearDuplicateSettings
    from groundup.data.dedup import find_near_duplicates

    began = time.perf_counter()
    settings = NearDuplicateSettings(threshold=THRESHOLD)
    found = find_near_duplicates(documents, settings, folder / "scratch", processes=processes)
    with documents.open("rb") as source, (folder / "kept.jsonl").open("wb") as target:
        target.writelines(line for line, keep in zip(source, found.keep_D.tolist()) if keep)
    return {"seconds": time.perf_counter() - began, "dropped": found.dropped.tolist()}


def dedup_datatrove(documents: Path, processes: int, folder: Path) -> dict[str, Any]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    cut_into(folder / "in", documents, processes)
    with documents.open("rb") as source:
        total = sum(1 for _ in source)
    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=BAND_ROWS)
    at = {name: str(folder / name) for name in ("in", "signatures", "buckets", "clusters", "kept")}

    def execute(steps: list[Any], tasks: int, name: str) -> None:
        logs = str(folder / "logs" / name)
        LocalPipelineExecutor(steps, tasks=tasks, workers=min(tasks, processes), logging_dir=logs).run()

    began = time.perf_counter()
    reader = JsonlReader(at["in"])
    signing = MinhashDedupSignature(at["signatures"], config)
    signing._hash_func = hashed  # its own hands text to xxhash, which from 4.0 on takes bytes only
    execute([reader, signing], processes, "signatures")
    execute([MinhashDedupBuckets(at["signatures"], at["buckets"], config=config)], BANDS, "buckets")
    execute([MinhashDedupCluster(at["buckets"], at["clusters"], config=config)], 1, "clusters")
    writer = JsonlWriter(at["kept"], compression=None)
    execute([reader, MinhashDedupFilter(at["clusters"]), writer], processes, "filter")
    seconds = time.perf_counter() - began
    kept = set()
    for file in (folder / "kept").rglob("*.jsonl"):
        with file.open(encoding="utf-8") as opened:
            kept |= {int(json.loads(line)["id"]) for line in opened}
    return {"seconds": seconds, "dropped": [number for number in range(total) if number not in kept]}


def hashed(shingle: str) -> int:
    import xxhash

    return xxhash.xxh64_intdigest(shingle.encode())


def dedup_datasketch(documents: Path, processes: int, folder: Path) -> dict[str, Any]:
    """Signatures in several processes, the index in this one; a document that finds an earlier one goes."""
    from datasketch import MinHash, MinHashLSH

    began = time.perf_counter()
    index = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
    dropped, number = [], 0
    with (
        get_context("spawn").Pool(processes) as pool,
        documents.open("rb") as source,
        (folder / "kept.jsonl").open("wb") as target,
    ):
        chunks = iter(lambda: list(islice(source, 256)), [])
        for lines, signed in pool.imap(sketched, chunks):
            for line, values in zip(lines, signed):
                sketch = MinHash(num_perm=BANDS * BAND_ROWS, hashvalues=values, scheme=SCHEME)
                if index.query(sketch):
                    dropped.append(number)
                else:
                    index.insert(number, sketch)
                    target.write(line)
                number += 1
    return {"seconds": time.perf_counter() - began, "dropped": dropped}


def sketched(lines: list[bytes]) -> tuple[list[bytes], list[Any]]:
    from datasketch import MinHash

    texts = []
    for line in lines:
        words = WORD.findall(json.loads(line)["text"].casefold())
        texts.append({" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))})
    return lines, [each.hashvalues for each in MinHash.bulk(texts, num_perm=BANDS * BAND_ROWS, scheme=SCHEME)]
