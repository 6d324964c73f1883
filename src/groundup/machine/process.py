"""What a process is told before it trains: sums that repeat bit by bit, how many threads, and to keep its memory."""

from __future__ import annotations

import ctypes
import os
import sys

from groundup.errors import UserError

MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_MAX = -1, -4  # <malloc.h> of glibc
NEVER = 2**31 - 1


def check_alone() -> None:
    """Raise UserError where torchrun or accelerate has started several processes; only the first one speaks."""
    world = os.environ.get("WORLD_SIZE", "1")
    if not world.isdecimal() or int(world) < 2:
        return
    if os.environ.get("RANK", "0") != "0":
        raise SystemExit(2)
    raise UserError(
        f"{world} processes were started, and Groundup works in one.",
        where=f"WORLD_SIZE={world}, as torchrun and accelerate launch set it",
        why="they would do the same work in the same folder; training over several devices is not there yet",
        fix="start one: groundup run R, torchrun --nproc-per-node 1 -m groundup run R, "
        "or accelerate launch --num_processes 1 -m groundup run R",
    )


def prepare_process(device: str, threads: int) -> None:
    """The same bits when a step is run again: the same kernels, and sums cut over the same number of threads."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Else PyTorch fills every new tensor, to show reads of what nobody wrote: 4% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees, for the next step: giving it back costs a page fault for each 4 KB.

    Only glibc has this setting; elsewhere nothing is changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MALLOPT_MMAP_MAX, 0)
        mallopt(MALLOPT_TRIM_THRESHOLD, NEVER)
