"""One stage's folder: its lock, its checkpoints, and the manifest that says what it made and from what."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from groundup import __version__
from groundup.errors import UserError
from groundup.store import atomic, files

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_OUTPUTS = (
    "final",
    "data",
    "metrics.jsonl",
    "plan.json",
    "result.json",
    "quarantine.jsonl",
    "dropped.jsonl",
    "clusters.jsonl",
    "samples.jsonl",
    "completions.jsonl",
)
_OWNED = ("manifest.json", *_OUTPUTS, "tensorboard")
"""All that `clear` removes, besides checkpoints; the manifest goes first."""


@dataclass(frozen=True)
class Stage:
    """A stage's folder in a run. `root` is made when the stage starts."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def final(self) -> Path:
        """The model or adapter folder that the stage made."""
        return self.root / "final"

    @property
    def data(self) -> Path:
        """The folder of data that the stage made."""
        return self.root / "data"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def quarantine(self) -> Path:
        """Rows that could not be used, one a line, with the reason."""
        return self.root / "quarantine.jsonl"

    @property
    def dropped(self) -> Path:
        """Documents that are whole but were not wanted, one a line, with the reason."""
        return self.root / "dropped.jsonl"

    @property
    def clusters(self) -> Path:
        """Near duplicates, a cluster a line, with the one that stayed."""
        return self.root / "clusters.jsonl"

    @property
    def samples(self) -> Path:
        return self.root / "samples.jsonl"

    @property
    def completions(self) -> Path:
        """Answers that a policy gave while it was trained, with their rewards, one a line."""
        return self.root / "completions.jsonl"

    @property
    def _start(self) -> Path:
        return self.root / "started.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the stage for this process; the system frees it when the process dies, however it dies.

        Raises:
            UserError: another process holds it, which the message names.
        """
        holder = self.root / "stage.lock.json"  # beside the lock: Windows lets nobody read a locked file
        with atomic.explained(self.root, "The stage could not be locked."):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / "stage.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise _held(self, holder) from error
        try:
            files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def started(self, fingerprint: str) -> bool:
        """Whether partial work of this very fingerprint exists; if not, clears the stage and begins it.

        To be called while holding the lock.
        """
        atomic.remove_leftovers(self.root)
        if self.is_begun(fingerprint):
            return True
        self.clear()
        files.write_json(self._start, {"fingerprint": fingerprint, "started_at": _now()})
        return False

    def is_begun(self, fingerprint: str) -> bool:
        """Whether what is here, finished or not, was made from this very fingerprint."""
        return self._start.exists() and files.read_json(self._start)["fingerprint"] == fingerprint

    def clear(self) -> None:
        """Removes what the stage made, and nothing else: files of yours stay, and what links point to stays.

        Raises:
            UserError: the folder has a stage's names but no stage made them.
        """
        present = [
            self.root / name for name in _OWNED if os.path.lexists(self.root / name)
        ] + self.checkpoints()
        if not present and not self._start.exists():
            return
        if not self._start.exists() and not self.manifest.exists():
            raise UserError(
                f"The folder of stage {self.name} holds files that no stage made.",
                where=str(present[0]),
                fix="Choose another run folder with --out, or move these files away.",
            )
        files.write_json(
            self._start, {"fingerprint": "", "started_at": _now()}
        )  # a crash midway resumes nothing
        for path in present:
            atomic.remove(path)
        atomic.remove(self._start)

    def finish(self, fingerprint: str, result: dict[str, Any]) -> None:
        """Writes the result and, last, the manifest: from then on the stage is finished."""
        files.write_json(self.result, result)
        atomic.remove_leftovers(self.root)
        outputs = [file for name in _OUTPUTS for file in _files_of(self.root / name)]
        for path in outputs:
            atomic.sync_file(path)
        entries = [
            {
                "path": path.relative_to(self.root).as_posix(),
                "bytes": path.stat().st_size,
                "xxh3": files.hash_file(path),
            }
            for path in outputs
        ]
        manifest = {
            "groundup": __version__,
            "fingerprint": fingerprint,
            "finished_at": _now(),
            "files": entries,
        }
        files.write_json(self.manifest, manifest)

    def finished(self, fingerprint: str) -> dict[str, Any] | None:
        """The result of a finished stage, if it was made from this fingerprint and every output is still as it was."""
        if not self.manifest.exists():
            return None
        manifest = files.read_json(self.manifest)
        if manifest["fingerprint"] != fingerprint or self.changed_outputs():
            return None
        return self.read_result()

    def changed_outputs(self) -> list[str]:
        """The outputs of a finished stage that are missing or no longer what it wrote, relative to its folder."""
        return [
            entry["path"]
            for entry in files.read_json(self.manifest)["files"]
            if not _is_unchanged(self.root / entry["path"], entry)
        ]

    def read_result(self) -> dict[str, Any] | None:
        """The result as it was written, from whatever fingerprint; None until the stage is finished."""
        return files.read_json(self.result) if self.manifest.exists() else None

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, by step."""
        if not self.root.is_dir():
            return []
        found = {path: _CHECKPOINT.fullmatch(path.name) for path in self.root.iterdir() if path.is_dir()}
        steps = {path: int(match[1]) for path, match in found.items() if match}
        return sorted(steps, key=lambda path: steps[path])

    def publish_checkpoint(self, step: int, write: Callable[[Path], object], keep: int = 2) -> Path:
        """Lets `write` fill a checkpoint's folder, which appears whole or not at all; keeps the `keep` newest (>= 1).

        Raises:
            UserError: the disk is full or cannot be written; older checkpoints are as they were.
        """
        target = self.root / f"checkpoint-{step:06d}"
        atomic.publish_folder(target, write)
        older = [path for path in self.checkpoints() if path != target]
        for path in older[: max(0, len(older) - (keep - 1))]:
            atomic.remove(path)
        return target


def _held(stage: Stage, holder: Path) -> UserError:
    who = "Another process"
    if holder.exists():
        process = files.read_json(holder)
        who = f"Process {process['pid']} on {process['host']}"
    return UserError(
        f"Stage {stage.name} is already running.",
        where=str(stage.root),
        why=f"{who} holds its lock.",
        fix="Wait for it, stop it, or choose another run folder with --out.",
    )


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def _is_unchanged(path: Path, entry: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and files.hash_file(path) == entry["xxh3"]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
