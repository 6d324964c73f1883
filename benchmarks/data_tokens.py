"""Documents into token shards, beside `tokenizers.encode_batch` alone and beside datatrove's tokenizer.

    python benchmarks/data_tokens.py DOCUMENTS.jsonl tokenizer.json [--processes 2] [--times 3]

Each way runs in processes of its own over the same JSON lines (`text`), on as many cores as the others. Megabytes are
of UTF-8 text. Peak memory is the largest sum of resident memory over a way's processes, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil

Taken = tuple[float, float]
"""Seconds of wall clock, and of all processes' work: the second says more on a machine that others use too."""

BATCH = 1000
"""Documents of one call of encode_batch alone: enough for all cores."""


def ours(source: Path, tokenizer: Path, processes: int, out: Path) -> Taken:
    """Seconds from JSON lines to shards on the disk."""
    from tokenizers import Tokenizer

    from groundup.stages.tokenizer import texts
    from groundup.tokenizer import write_shards

    core = Tokenizer.from_file(str(tokenizer))
    given = SimpleNamespace(backend_tokenizer=core, get_vocab=core.get_vocab, eos_token_id=0)
    began = _now()
    write_shards(out / "shards", lambda first: texts(source, first), given, source="benchmark")
    return _since(began)


def encode_batch(source: Path, tokenizer: Path, processes: int, out: Path) -> Taken:
    """Seconds of encoding alone: the documents are in memory before, and the ids are thrown away."""
    from tokenizers import Tokenizer

    from groundup.stages.tokenizer import texts

    core = Tokenizer.from_file(str(tokenizer))
    documents = list(texts(source))
    began = _now()
    for first in range(0, len(documents), BATCH):
        core.encode_batch(documents[first : first + BATCH])
    return _since(began)


def encode_batch_fast(source: Path, tokenizer: Path, processes: int, out: Path) -> Taken:
    """The same without offsets, which our shards do not need either."""
    from tokenizers import Tokenizer

    from groundup.stages.tokenizer import texts

    core = Tokenizer.from_file(str(tokenizer))
    documents = list(texts(source))
    began = _now()
    for first in range(0, len(documents), BATCH):
        core.encode_batch_fast(documents[first : first + BATCH])
    return _since(began)


def datatrove(source: Path, tokenizer: Path, processes: int, out: Path) -> Taken:
    """Seconds of its reader and tokenizer, a task a process; the file is cut into as many beforehand."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    (out / "in").mkdir()
    files = [(out / "in" / f"{number}.jsonl").open("wb") for number in range(processes)]
    with source.open("rb") as lines:
        for number, line in enumerate(lines):
            files[number % processes].write(line)
    for file in files:
        file.close()
    began = _now()
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(out / "in")),
            DocumentTokenizer(str(out / "out"), str(tokenizer), eos_token=None, shuffle_documents=False),
        ],
        tasks=processes,
        workers=processes,
        logging_dir=str(out / "log"),
    ).run()
    return _since(began)


WAYS = {way.__name__: way for way in (ours, encode_batch, encode_batch_fast, datatrove)}


def measure(source: Path, tokenizer: Path, processes: int, way: str) -> dict[str, float]:
    """One way in its own process: `megabytes`, `seconds`, `cpu_seconds`, `megabytes_per_second`, `peak_megabytes`."""
    threads = "1" if way == "datatrove" else str(processes)  # there each process encodes by itself
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, str(source), str(tokenizer), "--processes", str(processes)]
        child = subprocess.Popen(
            [*command, "--way", way, "--out", out],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        peak = 0
        while child.poll() is None:
            peak = max(peak, _resident_bytes(child.pid))
            time.sleep(0.1)
        said = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise RuntimeError(f"{way} failed with exit code {child.returncode}")
    seconds, cpu_seconds = json.loads(said.strip().splitlines()[-1])
    megabytes = text_bytes(source) / 1e6
    return {
        "megabytes": megabytes,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "megabytes_per_second": megabytes / seconds,
        "peak_megabytes": peak / 1e6,
    }


def _now() -> Taken:
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def _since(began: Taken) -> Taken:
    wall, work = _now()
    return wall - began[0], work - began[1]


def text_bytes(source: Path) -> int:
    """UTF-8 of the documents."""
    with source.open(encoding="utf-8") as lines:
        return sum(len(json.loads(line)["text"].encode("utf-8")) for line in lines)


def _resident_bytes(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended meanwhile
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--times", type=int, default=1, help="the median of so many")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(WAYS[asked.way](asked.documents, asked.tokenizer, asked.processes, asked.out)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.times):
        for way in WAYS:  # in turn, so that a busy minute hits all of them
            found[way].append(measure(asked.documents, asked.tokenizer, asked.processes, way))
    for way, rounds in found.items():
        middle = sorted(rounds, key=lambda one: one["seconds"])[len(rounds) // 2]
        print(
            f"{way:20} {middle['megabytes']:8.1f} MB {middle['seconds']:8.2f} s",
            f"{middle['cpu_seconds']:8.2f} s of work {middle['megabytes_per_second']:8.2f} MB/s",
            f"  peak {middle['peak_megabytes']:6.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
