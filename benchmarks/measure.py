"""What both sides are measured with: child processes, clocks, memory, and what this machine is."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from groundup.machine.probe import cpu_name

if TYPE_CHECKING:
    from groundup.batch import Record

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "groundup")
CHILD = Path(__file__).with_name("child.py")


WARM_UP_STEPS = 2
"""The first step loads kernels and ends with the optimizer's moments made; the second finds new room beside them."""


@dataclass(frozen=True)
class Job:
    """What one child process measures: the same for both sides but for `side` and `settings`."""

    side: str
    """Which side of which script: a key of `child.MODULES`."""
    kind: str
    """dpo, sft, pretrain or grpo."""
    lora: bool
    model: Path
    """A Hugging Face folder."""
    steps: tuple[tuple[Record, ...], ...]
    """The rows of each optimizer step; the first WARM_UP_STEPS warm up and are not counted."""
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)


def run_child(job: Job, timeout_seconds: float) -> dict[str, Any]:
    """Run the job in a process of its own, so that its memory is its own; `error` in the result says what failed."""
    with tempfile.TemporaryDirectory(prefix="groundup-benchmark-") as folder:
        request, answer = Path(folder) / "job.pickle", Path(folder) / "result.json"
        request.write_bytes(pickle.dumps(job))
        quiet = {
            **{"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
            **{"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"},
            **{"HF_DATASETS_CACHE": folder, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
            **{"OMP_NUM_THREADS": str(job.threads), "PYTHONWARNINGS": "ignore", "TMPDIR": folder},
        }
        command = [sys.executable, str(CHILD), str(request), str(answer)]
        try:
            done = subprocess.run(
                command, env=os.environ | quiet, stdout=sys.stderr, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {timeout_seconds:.0f} s"}
        if not answer.exists():
            return {"error": f"the process ended with code {done.returncode} (killed for memory if -9)"}
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


class Clock:
    """Marks at the ends of optimizer steps; without a name it says nothing."""

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._last = time.perf_counter()
        self.seconds: list[float] = []

    def start(self) -> None:
        self._last = time.perf_counter()

    def step(self, loss: float | None = None) -> None:
        """One optimizer step has ended."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if not self._what:
            return
        number = len(self.seconds) - WARM_UP_STEPS
        kind = "warm-up step" if number <= 0 else f"step {number}"
        told = "" if loss is None else f", loss {loss:.4f}"
        progress(f"{self._what}: {kind} {self.seconds[-1]:.2f} s{told}")


def progress(line: str) -> None:
    """A line for whoever waits."""
    print(f"  {line}", file=sys.stderr, flush=True)


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most that this process ever had in memory.

    Linux keeps it for the program itself in VmHWM; getrusage's figure also counts the parent before it was replaced.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the system can: reading a weights file is not training."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def environment(threads: int) -> dict[str, Any]:
    """Versions, processor, threads, and how busy the machine was before."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []
    memory = psutil.virtual_memory()
    return {
        "versions": versions,
        "cpu": cpu_name(),
        "threads": threads,
        "load_average": load,
        "memory_gb": round(memory.total / 1e9, 1),
        "platform": platform.platform(),
    }
