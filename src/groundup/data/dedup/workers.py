"""Work for several processes: results in order, a bounded number in flight, one process none at all."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from groundup.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers:
    """Processes that wait for work; with one, work is done in this process. To be used in `with`."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if (
            self.processes > 1
        ):  # spawned on every system alike: threads of this process would not survive a fork
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, mp_context=context)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """`function` of each job, in order; twice as many are in flight as there are processes.

        Raises:
            UserError: a process was killed, which is what systems do when memory runs out.
        """
        if self._pool is None:
            yield from map(function, jobs)
            return
        flying: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                flying.append(self._pool.submit(function, job))
                if len(flying) >= 2 * self.processes:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process ended before its work was done.",
                why="Most likely the system stopped it because memory ran out.",
                fix="Close other programs, or use fewer processes.",
            ) from error


def usable_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
