"""A reward function out of a user's file, called as TRL calls it."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings


class OwnFunction:
    """`f(prompts, completions, **columns)`, synchronous or not.

    It is given what TRL gives: prompts, completions, completion_ids, the data's columns, trainer_state where there is
    one, log_extra and log_metric; of these only what it takes, if it takes no **keywords.

    Raises UserError where the file cannot be run or has no such function.
    """

    def __init__(self, settings: RewardSettings) -> None:
        assert settings.file is not None
        self.file, self.name = settings.file.expanduser().resolve(), settings.function_name
        self.function = _function_of(_module(self.file), self.name, self.file)
        self.arguments = settings.arguments
        parameters = inspect.signature(self.function).parameters.values()
        self.takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
        self.takes = {each.name for each in parameters}

    def __call__(self, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> Answer:
        """Raises whatever the function raises."""
        answer = Answer()
        given: dict[str, Any] = {
            **columns,
            **self.arguments,
            "prompts": prompts,
            "completions": completions,
            "log_extra": answer.log_extra,
            "log_metric": answer.log_metric,
        }
        if not self.takes_all:
            given = {name: value for name, value in given.items() if name in self.takes}
        found = self.function(**given)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise TypeError(f"it returned {found!r:.80}, not a list with a number for each answer")
        answer.values = [number(value) for value in found]
        return answer


class Answer:
    """What one call gave: a number a row, and what the function told beside it."""

    def __init__(self) -> None:
        self.values: list[float | str | None] = []
        """A text says why a value is no number."""
        self.metrics: dict[str, list[float]] = {}
        self.extra: dict[str, list[Any]] = {}

    def log_metric(self, name: str, value: float) -> None:
        self.metrics.setdefault(name, []).append(float(value))

    def log_extra(self, column: str, values: list[Any]) -> None:
        self.extra.setdefault(column, []).extend(values)


def number(value: Any) -> float | str | None:
    """The value as a float; None stays (not applicable), and anything else is told."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return f"it returned {value!r:.80}, which is no number"


def told(error: BaseException, file: Path | None = None) -> str:
    """An exception in one line, with its place in the user's file."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if file and frame.filename == str(file)
    ]
    place = f" ({file.name}:{frames[-1].lineno})" if file and frames else ""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300] + place


async def _awaited(found: Any) -> Any:
    return await found


def _module(file: Path) -> ModuleType:
    """The file, run once; its folder is where it imports from."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UserError("the reward's file is not there", where=str(file), fix="correct its path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(
            "the reward's file cannot be run",
            where=str(file),
            why=told(error, file),
            fix="try it by itself: python " + file.name,
        ) from error
    return module


def _function_of(module: ModuleType, name: str, file: Path) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return function
    others = [
        each
        for each, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    raise UserError(
        f"{file.name} has no function {name}",
        where=str(file),
        why=f"it has {', '.join(others)}" if others else "it has no functions",
        fix="correct the name behind the colon",
    )
