"""What this machine has and what this process may use of it: cores, memory, GPUs."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    memory_bytes: int
    available_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """Everything counts only what this process may use: CPU affinity and container limits are respected."""

    platform: str
    python: str
    cpu_name: str
    cores: int  # physical cores, or as many as OMP_NUM_THREADS says where that is fewer
    threads: int  # hardware threads
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]
    torch_version: str

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


def probe() -> Machine:
    """Look at this machine. Imports torch; takes about as long as that import."""
    import torch

    limit_bytes, used_bytes = cgroup_memory()
    memory = psutil.virtual_memory()
    threads = usable_threads()
    return Machine(
        platform=platform.platform(),
        python=platform.python_version(),
        cpu_name=cpu_name(),
        cores=min(threads, psutil.cpu_count(logical=False) or threads, wanted_threads() or threads),
        threads=threads,
        memory_bytes=min(memory.total, limit_bytes or memory.total),
        available_bytes=min(
            memory.available, max(0, limit_bytes - used_bytes) if limit_bytes else memory.available
        ),
        gpus=_gpus(),
        torch_version=str(torch.__version__),
    )


def usable_threads(root: Path = Path("/")) -> int:
    """Hardware threads that this process may run on: CPU affinity, and a container's CPU quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cgroup_cpu_quota(root)
    return max(1, min(threads, math.ceil(quota))) if quota else threads


def wanted_threads() -> int:
    """What OMP_NUM_THREADS says, as every program with OpenMP takes it; 0: nothing.

    On a machine that others use too, threads that wait for one another's core are many times slower than one.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's marketing name where the system tells it, else the architecture."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def cgroup_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Tightest memory limit of the Linux control groups that this process is in, and the bytes used against it.

    (0, 0) where there is no limit. Used bytes leave out file cache that the kernel drops when memory gets tight.
    """
    tightest = (0, 0)
    for folder in _cgroup_folders(root, "memory"):
        limit = _integer(folder / "memory.max") or _integer(folder / "memory.limit_in_bytes")
        used = _integer(folder / "memory.current") or _integer(folder / "memory.usage_in_bytes")
        if not 0 < limit < 1 << 60:  # version 1 writes about 2**63 for "no limit"
            continue
        stat = dict(
            line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line
        )
        used -= int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        if not tightest[0] or limit - used < tightest[0] - tightest[1]:
            tightest = (limit, max(0, used))
    return tightest


def _cgroup_cpu_quota(root: Path) -> float:
    """CPUs' worth of time that the control groups allow; 0: no limit."""
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=0.0)


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Folders of the groups that this process is in, innermost first, for version 2 and version 1."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers and controller not in controllers.split(","):
            continue
        mount = mount / controller if controllers else mount
        inner = mount / group.lstrip("/")
        folders += [
            inner,
            *(parent for parent in inner.parents if parent == mount or mount in parent.parents),
        ]
    return [folder for folder in folders if folder.is_dir()]


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        available_bytes, memory_bytes = torch.cuda.mem_get_info(index)
        found.append(
            Gpu(index, properties.name, memory_bytes, available_bytes, (properties.major, properties.minor))
        )
    return tuple(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _integer(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0
