"""Cleaning: the four sets of filters, ours beside datatrove's, on the same documents and number of processes.

Both read JSON lines, repair with ftfy, apply Gopher's repetition and quality rules, C4's and FineWeb's, and write what
stays. datatrove finds words with spaCy, ours with a regular expression.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data_session import Session, compared, cut_into, growth, labelled
from table import Row, failed, memory

FILTERS = ["gopher_repetition", "gopher", "c4", "fineweb"]
BATCH = 100


def rows(session: Session) -> Iterator[Row]:
    """1x, 2x, 4x of the input, then speed and memory beside datatrove."""
    ours = yield from growth(session, "clean", clean_ours, processes=session.processes)
    if ours is None:
        return
    documents, peer = session.documents(), labelled("datatrove")
    settings = f"{', '.join(FILTERS)}, {session.processes} processes"
    theirs = session.run(clean_datatrove, documents=documents, processes=session.processes)
    if "error" in theirs:
        yield failed("clean", peer, settings, theirs["error"], "MB/s")
        return
    size = documents.stat().st_size / 1e6
    speeds = (size / ours["seconds"], size / theirs["seconds"])
    note = f"kept: ours {ours['kept']:,}, datatrove {theirs['kept']:,}"
    yield compared("clean", peer, settings, "MB/s", *speeds, note)
    yield memory("clean", peer, "", "GB, peak", ours["peak_bytes"], theirs["peak_bytes"])


def clean_ours(documents: Path, processes: int, folder: Path) -> dict[str, Any]:
    from groundup.config.schema import CleanSettings, DataSettings
    from groundup.data.refine import refiner_of
    from groundup.data.workers import map_ordered

    began, kept = time.perf_counter(), 0
    refiner = refiner_of(CleanSettings(data=DataSettings(path=["-"]), filters=FILTERS, min_chars=0))
    with documents.open(encoding="utf-8") as source, (folder / "kept.jsonl").open("w") as target:
        texts = (json.loads(line)["text"] for line in source)
        for _, results in map_ordered(refiner, iter(lambda: list(islice(texts, BATCH)), []), processes):
            for refined in results:
                if not refined.reason:
                    kept += 1
                    target.write(json.dumps({"text": refined.text}) + "\n")
    return {"seconds": time.perf_counter() - began, "kept": kept}


def clean_datatrove(documents: Path, processes: int, folder: Path) -> dict[str, Any]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import filters
    from datatrove.pipeline.formatters import FTFYFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    cut_into(folder / "in", documents, processes)
    steps = [
        JsonlReader(str(folder / "in")),
        FTFYFormatter(),
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(),
        filters.FineWebQualityFilter(),
        JsonlWriter(str(folder / "kept"), compression=None),
    ]
    began = time.perf_counter()
    LocalPipelineExecutor(steps, tasks=processes, workers=processes, logging_dir=str(folder / "logs")).run()
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "kept": sum(file.read_bytes().count(b"\n") for file in (folder / "kept").rglob("*.jsonl")),
    }
