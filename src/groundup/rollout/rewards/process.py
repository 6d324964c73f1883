"""One reward's process, as the trainer sees it: asked under a time limit, ended when it gives no answer."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError
from groundup.rollout.rewards.child import Asked, Reply, plain, serve
from groundup.rollout.rewards.shipped import needed_column

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings

START_SECONDS = 120.0
"""Importing a user's file may take long; it happens once."""
HANGS_AT_MOST = 3
"""After so many answers in one call that took too long, the others are not tried any more."""


@dataclass
class Judged:
    """A value a row: None does not apply, a text says what went wrong."""

    values: list[float | str | None]
    metrics: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, list[Any]] = field(default_factory=dict)


class RewardProcess:
    """Started at once and kept; `ready` waits until its function is loaded."""

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._loaded = False
        self.start()

    def start(self) -> None:
        """Anew, not forked: threads of this process would not survive that, and it is the same everywhere."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, plain(self.settings)), daemon=True)
        self._process.start()
        theirs.close()
        self._loaded = False

    def ready(self) -> None:
        """Raises UserError where the function cannot be loaded."""
        if self._process is None:
            self.start()
        if self._loaded:
            return
        assert self._pipe is not None
        said: Any = None
        try:
            said = self._pipe.recv() if self._pipe.poll(START_SECONDS) else None
        except (EOFError, OSError):
            pass
        if said == "ready":
            self._loaded = True
            return
        code = self.end()
        if isinstance(said, UserError):
            raise said
        why = (
            f"nothing came in {START_SECONDS:.0f} s"
            if code is None
            else f"its process ended with code {code}"
        )
        fix = ""
        if code is not None:
            fix = 'in a script of your own, begin below `if __name__ == "__main__":`, for each process reads it anew'
        raise UserError(f"the reward {self.settings.metric_name} cannot be loaded", why=why, fix=fix)

    def end(self) -> int | None:
        """Stop it, whatever it does; its exit code if it had ended by itself."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
        if process is None:
            return None
        process.join(0.2)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        return code

    def judge(self, asked: Asked) -> Judged:
        """Every row's value, or why there is none; it takes a few time limits at most. Raises UserError."""
        return (
            self._together(asked) if self.settings.file is not None else self._one_by_one(self._needed(asked))
        )

    def _needed(self, asked: Asked) -> Asked:
        """Shipped functions look at answers, and at one column at most."""
        column = needed_column(self.settings)
        if column is None:
            return Asked([], asked.completions, {})
        if column not in asked.columns:
            raise UserError(
                f"the reward {self.settings.metric_name} needs the column {column!r}",
                why=f"the rows have {', '.join(sorted(asked.columns)) or 'no other columns than the prompt'}",
                fix="set column to the one that holds the right answer",
            )
        return Asked([], asked.completions, {column: asked.columns[column]})

    def _one_by_one(self, asked: Asked) -> Judged:
        """Shipped functions send a value a row, each within the limit."""
        values: list[float | str | None] = []
        hangs = 0
        while len(values) < len(asked):
            if hangs == HANGS_AT_MOST:
                return Judged(_given_up(values, len(asked)))
            self._send(asked.part(len(values), len(asked)))
            while len(values) < len(asked):
                reply = self._reply()
                if isinstance(reply, str):
                    values.append(reply)
                    hangs += 1
                    break
                values.append(reply.raised or reply.values[0])
        return Judged(values)

    def _together(self, asked: Asked) -> Judged:
        """A user's function gets all rows at once; where that fails, one row at a time, to find out which."""
        whole = self._call(asked)
        if isinstance(whole, Judged):
            return whole
        if whole.startswith("it returned"):  # a wrong count: nothing that it says of one row can be trusted
            return Judged([whole] * len(asked))
        found = Judged([])
        hangs = 0
        for row in range(len(asked)):
            if hangs == HANGS_AT_MOST:
                return Judged(_given_up(found.values, len(asked)), found.metrics, found.extra)
            one = self._call(asked.part(row, row + 1)) if len(asked) > 1 else whole
            if isinstance(one, str):
                hangs += self._process is None
                found.values.append(one)
                continue
            found.values += one.values
            _extend(found.metrics, one.metrics)
            _extend(found.extra, one.extra)
        wrong = any(isinstance(value, str) for value in found.values)
        if not wrong and not whole.startswith("it gave no answer"):
            return Judged([f"{whole} (with {len(asked)} rows at once; each by itself works)"] * len(asked))
        return found

    def _call(self, asked: Asked) -> Judged | str:
        self._send(asked)
        reply = self._reply()
        if isinstance(reply, str):
            return reply
        if reply.raised:
            return reply.raised
        if len(reply.values) != len(asked):
            return f"it returned {len(reply.values)} rewards for {len(asked)} answers"
        return Judged(reply.values, reply.metrics, reply.extra)

    def _send(self, asked: Asked) -> None:
        self.ready()
        assert self._pipe is not None
        try:
            self._pipe.send(asked)
        except OSError:
            pass  # it has ended, which the missing reply tells

    def _reply(self) -> Reply | str:
        """What came, or a sentence on why nothing did; then the process is ended, and started when next asked."""
        assert self._pipe is not None
        limit = self.settings.timeout_seconds
        try:
            if self._pipe.poll(limit):
                reply: Reply = self._pipe.recv()
                return reply
        except (EOFError, OSError):
            code = self.end()
            return f"its process ended with code {code}" + (
                " (killed, perhaps for memory)" if code == -9 else ""
            )
        self.end()
        return f"it gave no answer within {limit:g} s"


def _given_up(values: list[float | str | None], rows: int) -> list[float | str | None]:
    missing = rows - len(values)
    return [*values, *([f"not tried: {HANGS_AT_MOST} answers before it got no value in time"] * missing)]


def _extend(held: dict[str, list[Any]], new: dict[str, list[Any]]) -> None:
    for name, values in new.items():
        held.setdefault(name, []).extend(values)
