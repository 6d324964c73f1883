"""What the data benchmarks share: the documents, a process of its own for each side, its time and peak memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from data_material import make_documents
from measure import progress
from table import Row, failed, memory

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Session:
    """One call of data.py."""

    data: Path
    """The folder of real data."""
    cache: Path
    megabytes: int
    processes: int
    timeout_seconds: float

    def documents(self, megabytes: float | None = None) -> Path:
        """JSON lines `id, text` of about so many MB; made once. Beside it `.pairs.json`: the planted pairs."""
        return make_documents(self.data / "pretrain", self.cache, megabytes or self.megabytes)

    def run(self, function: Callable[..., dict[str, Any]], **given: Any) -> dict[str, Any]:
        """`function(**given, folder=...)` in a process of its own, in an empty folder that is removed afterwards.

        What it returns, and `wall_seconds` and `peak_bytes` of it and all its children together; or `error`.
        """
        progress(f"{function.__module__}.{function.__name__} {self._told(given)}")
        folder = Path(tempfile.mkdtemp(prefix="side-", dir=self.cache))
        request, answer = folder / "request.pickle", folder / "answer.json"
        (folder / "work").mkdir()
        module = function.__module__
        request.write_bytes(pickle.dumps((module, function.__name__, given | {"folder": folder / "work"})))
        quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
        began = time.perf_counter()
        try:
            with (folder / "log").open("wb") as log:
                child = subprocess.Popen(
                    [
                        sys.executable,
                        str(Path(__file__).with_name("data_child.py")),
                        str(request),
                        str(answer),
                    ],
                    env=os.environ | quiet | {"HF_HUB_OFFLINE": "1"},
                    stdout=log,
                    stderr=log,
                )
                peak = self._watched(child, began)
            if not answer.exists():
                last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                return {"error": f"ended with code {child.returncode}: {' '.join(last)[:300]}"}
            result: dict[str, Any] = json.loads(answer.read_text())
            return {"wall_seconds": time.perf_counter() - began, "peak_bytes": peak} | result
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _watched(self, child: subprocess.Popen[bytes], began: float) -> int:
        """The most memory that the child and all below it had at once; ends with the child or the time."""
        peak, process = 0, psutil.Process(child.pid)
        try:
            while child.poll() is None:
                peak = max(peak, tree_bytes(process))
                if time.perf_counter() - began > self.timeout_seconds:
                    break
                time.sleep(SAMPLE_SECONDS)
        finally:
            if child.poll() is None:
                for each in (*process.children(recursive=True), process):
                    each.kill()
            child.wait()
        return peak

    @staticmethod
    def _told(given: dict[str, Any]) -> str:
        return " ".join(f"{name}={value}" for name, value in given.items() if not isinstance(value, Path))


def tree_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and its children; pages that several share count once for each."""
    total = 0
    for each in (process, *_children(process)):
        try:
            total += each.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def compared(
    work: str, peer: str, settings: str, unit: str, ours: float, theirs: float, note: str = ""
) -> Row:
    """A speed: more is better."""
    return Row(
        work, peer, settings, unit, round(ours, 2), round(theirs, 2), round(ours / theirs, 2), note=note
    )


def growth(
    session: Session, work: str, function: Callable[..., dict[str, Any]], **given: Any
) -> Generator[Row, None, dict[str, Any] | None]:
    """Ours at a quarter of the input, at half of it and at all: rows beside the smallest, as they are measured.

    Returns what ran on all of it; None after a side that failed, which is the last row.
    """
    first: dict[str, Any] = {}
    for share in (1, 2, 4):
        mb = session.megabytes * share / 4
        one = session.run(function, documents=session.documents(mb), **given)
        if "error" in one:
            yield failed(work, "Groundup", "", one["error"], "MB/s")
            return None
        first = first or one
        name = f"{work}, {share}x: {mb:g} MB"
        rates = (mb / one["seconds"], session.megabytes / 4 / first["seconds"])
        yield compared(name, "ours at 1x", "", "MB/s", *rates)
        yield memory(name, "ours at 1x", "", "GB, peak", one["peak_bytes"], first["peak_bytes"])
    return one


def labelled(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def cut_into(folder: Path, documents: Path, parts: int) -> None:
    """The documents as several files, since datatrove's tasks take whole ones."""
    folder.mkdir()
    files = [(folder / f"{part:05d}.jsonl").open("wb") for part in range(parts)]
    with documents.open("rb") as source:
        for number, line in enumerate(source):
            files[number % parts].write(line)
    for file in files:
        file.close()
