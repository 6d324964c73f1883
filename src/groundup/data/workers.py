"""Work on batches in other processes: results in the order of the batches, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from groundup.errors import UserError

Batch = TypeVar("Batch")
Result = TypeVar("Result")
WAITING_PER_WORKER = 3
"""Batches handed out and not yet taken back, for each process."""
SMALL_BYTES = 8_000_000
"""Less input than this is done before other processes have started."""

_task: Callable[[Any], Any] | None = None


def worker_count(wanted: int, input_bytes: int) -> int:
    """`wanted`, or with 0 as many as the machine has processors for this process; one for little input."""
    if wanted:
        return wanted
    return 1 if input_bytes < SMALL_BYTES else processors()


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ordered(
    task: Callable[[Batch], Result], batches: Iterable[Batch], workers: int
) -> Iterator[tuple[Batch, Result]]:
    """Each batch with its result, in order. With one worker all happens here.

    `task` is sent to each process once, so it may hold much; it and the batches must be picklable. Processes are
    started anew, not forked: the same on every platform.
    """
    if workers <= 1:
        for batch in batches:
            yield batch, task(batch)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_receive, initargs=(task,))
    waiting: deque[tuple[Batch, Future[Result]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(_run, batch)))
            if len(waiting) >= WAITING_PER_WORKER * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process ended before its work was done.",
            why="the system ends processes when memory is short; or somebody stopped it",
            fix="set workers to a smaller number, for example workers: 1",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _receive(task: Callable[[Any], Any]) -> None:
    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all processes; the one that asked decides
    _task = task


def _run(batch: Any) -> Any:
    assert _task is not None
    return _task(batch)
