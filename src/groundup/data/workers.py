"""Work for several processes: results in the order of the jobs, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from typing import Any, TypeVar

from groundup.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
WAITING_PER_PROCESS = 3
"""Jobs handed out and not yet taken back, for each process."""
SMALL_CHARS = 8_000_000
"""Less text than this is worked on before other processes have started."""

_task: Callable[[Any], Any] | None = None


def worker_count(
    wanted: int, jobs: Iterable[Job], chars: Callable[[Job], int], small_chars: int = 0
) -> tuple[int, Iterable[Job]]:
    """How many processes the jobs are worth, and the jobs.

    `wanted`, or with 0 as many as the machine has processors for this process; one for little text. What is little is
    not known from the sizes of files, packed and cut as they are, so jobs are taken until there is enough: small_chars,
    or SMALL_CHARS.
    """
    if wanted:
        return wanted, jobs
    waiting = iter(jobs)
    taken, total = [], 0
    for job in waiting:
        taken.append(job)
        total += chars(job)
        if total >= (small_chars or SMALL_CHARS):
            return processors(), chain(taken, waiting)
    return 1, taken


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Workers:
    """Processes that wait for work; with one, all is done in this process. To be used in `with`.

    They are started anew, not forked: threads of this process would not survive that, and it is the same everywhere.
    `task` is sent to each process once, so it may hold much; what is sent must be picklable.
    """

    def __init__(self, processes: int, task: Callable[[Any], Any] | None = None) -> None:
        self.processes = processes
        self._given = task
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.processes > 1:
            self._pool = ProcessPoolExecutor(
                self.processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_receive,
                initargs=(self._given,),
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """`function` of each job, in order. Raises UserError where a process was killed."""
        for _, result in self.with_jobs(function, jobs):
            yield result

    def with_jobs(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result]]:
        """The same, each result with its job."""
        if self._pool is None:
            for job in jobs:
                yield job, function(job)
            return
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        try:
            for job in jobs:
                waiting.append((job, self._pool.submit(function, job)))
                if len(waiting) >= WAITING_PER_PROCESS * self.processes:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process ended before its work was done.",
                why="the system ends processes when memory is short; or somebody stopped it",
                fix="close other programs and run the same command again; a clean stage can be told workers: 1; "
                'a script of your own must begin below `if __name__ == "__main__":`, for each process reads it anew',
            ) from error


def map_ordered(
    task: Callable[[Job], Result], batches: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Each batch with its result, in order; `task` goes to each process once."""
    with Workers(workers, task) as pool:
        yield from pool.with_jobs(_run if workers > 1 else task, batches)


def _receive(task: Callable[[Any], Any] | None) -> None:
    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all processes; the one that asked decides
    end_with_parent()
    _task = task


def end_with_parent() -> None:
    """For a process that works for another, which cannot stop it when it is killed outright: it would wait for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _run(batch: Any) -> Any:
    assert _task is not None
    return _task(batch)
