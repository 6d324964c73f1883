"""The process in which one reward's function runs; it starts often enough to import neither torch nor recipes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError
from groundup.rollout.rewards.own import OwnFunction, told
from groundup.rollout.rewards.shipped import make_judge, text_of

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings


@dataclass(frozen=True)
class Asked:
    """Answers to be judged."""

    prompts: list[Any]
    completions: list[Any]
    columns: dict[str, Any]
    """Lists with a value a row; anything else is handed on as it is."""

    def __len__(self) -> int:
        return len(self.completions)

    def part(self, first: int, last: int) -> Asked:
        columns = {
            name: value[first:last] if isinstance(value, list) else value
            for name, value in self.columns.items()
        }
        return Asked(self.prompts[first:last], self.completions[first:last], columns)


@dataclass(frozen=True)
class Reply:
    """One answer's value (shipped functions), or those of all that were asked (a user's function)."""

    values: list[float | str | None]
    """A text says what went wrong with a row."""
    raised: str = ""
    """Why there are no values."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, list[Any]] = field(default_factory=dict)


def plain(settings: RewardSettings) -> Any:
    """The same words without pydantic, which takes longer to import than all else here."""
    words = {name: getattr(settings, name) for name in type(settings).model_fields}
    names = {name: getattr(settings, name) for name in ("file", "function_name", "metric_name")}
    return SimpleNamespace(**words, **names)


def serve(pipe: Connection, settings: RewardSettings) -> None:
    """Load the function, say "ready" or what is wrong, and answer until the other end is closed."""
    _live_with_parent()
    try:
        answer = _own(settings) if settings.file is not None else _shipped(settings)
    except UserError as problem:
        pipe.send(problem)
        return
    pipe.send("ready")
    try:
        while True:
            answer(pipe, pipe.recv())
    except (EOFError, BrokenPipeError):
        pass


def _own(settings: RewardSettings) -> Callable[[Connection, Asked], None]:
    function = OwnFunction(settings)

    def answer(pipe: Connection, asked: Asked) -> None:
        try:
            found = function(asked.prompts, asked.completions, asked.columns)
        except (Exception, SystemExit) as error:
            pipe.send(Reply([], told(error, function.file)))
            return
        pipe.send(Reply(found.values, "", found.metrics, found.extra))

    return answer


def _shipped(settings: RewardSettings) -> Callable[[Connection, Asked], None]:
    judge = make_judge(settings)

    def answer(pipe: Connection, asked: Asked) -> None:
        for row, completion in enumerate(asked.completions):
            columns = {name: value[row] for name, value in asked.columns.items()}
            try:
                pipe.send(Reply([judge(text_of(completion), columns)]))
            except (Exception, RecursionError) as error:
                pipe.send(Reply([], told(error)))

    return answer


def _live_with_parent() -> None:
    """ctrl-C is the parent's to decide on, its death ends this process, and what is printed must not be its output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
