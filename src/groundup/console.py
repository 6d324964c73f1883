"""What people see while something runs: plain lines, warnings, errors, progress; and the same in a run's log.

On a terminal there is color and a moving bar. In a pipe every line is plain text. NO_COLOR and FORCE_COLOR are
honoured; FORCE_COLOR colors a pipe, but never makes a bar move in it.
"""

from __future__ import annotations

import collections
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from groundup.errors import UserError
from groundup.runlog import RunLog

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

LINE_EVERY_SECONDS = 5.0
RATE_WINDOW_SECONDS = 30.0
RATE_STEP_SECONDS = 0.1

_logs: list[RunLog] = []
_bars: list[RichProgress] = []  # at most one: nested bars are tasks of the same display
_failure_log: Path | None = None


def say(text: str = "") -> None:
    """A line for people on stdout, above a moving bar if there is one."""
    _log(logging.INFO, text)
    _print(text, sys.stdout, style="")


def say_styled(pieces: Sequence[tuple[str, str]]) -> None:
    """A line of pieces, each with rich's name of a style; plain text in a pipe."""
    text = "".join(piece for piece, _ in pieces)
    if not colored():
        say(text)
        return
    from rich.text import Text

    _log(logging.INFO, text)
    _rich_console(sys.stdout).print(Text.assemble(*pieces), soft_wrap=True)


def colored() -> bool:
    """Whether lines on stdout may have color."""
    return _colored(sys.stdout)


def warn(text: str) -> None:
    """A line on stderr, yellow on a terminal."""
    _log(logging.WARNING, text)
    _print(f"Warning: {text}", sys.stderr, style="yellow")


def error(problem: UserError) -> None:
    """A problem on stderr with its place, reason and remedy, red on a terminal."""
    _log(logging.ERROR, problem.render())
    _print(problem.render(), sys.stderr, style="red")


def prepare_streams() -> None:
    """Characters that a console cannot show become a replacement, never a crash (old Windows code pages)."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


@contextmanager
def attach_log(path: Path) -> Iterator[None]:
    """Append what is said, Python's logging and warnings, and the traceback of a failure to `path`.

    Meanwhile library messages stay off the console. Raises UserError when the file cannot be written.
    """
    global _failure_log
    try:
        log = RunLog(path)
    except OSError as problem:
        raise UserError(
            f"The log {path} cannot be written.",
            why=problem.strerror or str(problem),
            fix="Choose another folder with --out, or make this one writable.",
        ) from problem
    _logs.append(log)
    _failure_log = None
    try:
        yield
    except KeyboardInterrupt:
        log.line(logging.WARNING, "Interrupted.")
        raise
    except Exception as problem:
        log.failure(problem)
        _failure_log = _failure_log or path
        raise
    finally:
        _logs.remove(log)
        log.close()


def failure_log() -> Path | None:
    """The run.log that holds the traceback of the failure that is on its way to `main`, if one does."""
    return _failure_log


@contextmanager
def progress(
    task: str, total: int | None = None, unit: str = "step", start: int = 0, brief: bool = False
) -> Iterator[Progress]:
    """A bar on a terminal, lines in a pipe. `start`: how much was done before (a resumed run), not timed.

    brief: it may be over at once and come again, so it is shown from its fifth second on.
    """
    bar = Progress(task, total, unit, start)
    if not brief:
        bar.open()
    try:
        yield bar
    finally:
        bar.close()


class Progress:
    """How far one task is. Made by `progress`."""

    def __init__(self, task: str, total: int | None, unit: str, start: int) -> None:
        self.task, self.total, self.unit = task, total, unit
        self.done: float = start
        self._start = start
        self.extras: dict[str, Any] = {}
        now = time.monotonic()
        # (time, done) of the last RATE_WINDOW_SECONDS
        self._seen: collections.deque[tuple[float, float]] = collections.deque([(now, start)])
        self._began = self._line_at = now
        self._opened = False
        self._bar: RichProgress | None = None
        self._rich_task: Any = None

    def advance(self, count: float = 1, **extras: Any) -> None:
        """`count` more are done, or a part of one. Keywords are shown behind and stay until they are given again."""
        self.done += count
        self.extras.update(extras)
        now = time.monotonic()
        if len(self._seen) > 1 and now - self._seen[-2][0] < RATE_STEP_SECONDS:
            self._seen.pop()
        self._seen.append((now, self.done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW_SECONDS:
            self._seen.popleft()
        if self._bar is not None:
            self._bar.update(self._rich_task, completed=self.done, facts=self.facts())
        ending = self.total is not None and self.done > self.total - 1e-6  # its last line comes from `close`
        if now - self._line_at >= LINE_EVERY_SECONDS:
            if not self._opened:
                self.open()
            elif not ending:
                self._line()

    def show(self, **extras: Any) -> None:
        """Keywords to show from the next `advance` on."""
        self.extras.update(extras)

    def facts(self, ended: bool = False) -> str:
        """`120/600 steps · 2.1 steps/s · 3 min left · loss 1.234`"""
        of_total = "" if self.total is None else f"/{self.total:,}"
        whole = math.floor(self.done + 1e-6)  # parts of a unit may add up to a little less
        parts = [f"{whole:,}{of_total} {_plural(self.unit)}"]
        rate = self.rate(ended)
        if rate > 0:
            parts.append(_rate_words(rate, self.unit))
        if ended:
            parts.append(f"took {duration(time.monotonic() - self._began)}")
        elif rate > 0 and self.total is not None and self.total > self.done:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        for name, value in self.extras.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            parts.append(f"{name.replace('_', ' ')} {shown}")
        return " · ".join(parts)

    def rate(self, overall: bool = False) -> float:
        """Units a second: of the last half minute, or since the beginning. 0 when nothing was done yet."""
        begin, before = (self._began, self._start) if overall else self._seen[0]
        end, after = self._seen[-1]
        return (after - before) / max(end - begin, 1e-6)

    def open(self) -> None:
        """Show it."""
        self._opened = True
        if is_terminal(sys.stdout):
            if not _bars:
                _bars.append(_moving_bar())
                _bars[0].start()
            self._bar = _bars[0]
            self._rich_task = self._bar.add_task(
                self.task, total=self.total, completed=int(self.done), facts=self.facts()
            )
        self._line()

    def close(self) -> None:
        """Leave the last state standing."""
        if not self._opened:
            return
        self._line(ended=True)
        if self._bar is None:
            return
        self._bar.update(self._rich_task, facts=self.facts(ended=True))
        self._bar.stop_task(self._rich_task)
        others = [task for task in self._bar.tasks if task.stop_time is None]
        if others:
            self._bar.remove_task(self._rich_task)
        else:
            self._bar.stop()
            _bars.remove(self._bar)

    def _line(self, ended: bool = False) -> None:
        self._line_at = time.monotonic()
        text = f"{self.task}  {self.facts(ended)}"
        _log(logging.INFO, text)
        if self._bar is None:
            _print(text, sys.stdout, style="")


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 10 min`: as exact as anybody needs."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches: only then do bars move."""
    stream = getattr(
        stream, "rich_proxied_file", stream
    )  # what rich puts in place of stdout while a bar moves
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _plural(unit: str) -> str:
    return unit if unit.endswith("s") or not unit.islower() else f"{unit}s"


def _rate_words(rate: float, unit: str) -> str:
    if rate < 0.1:
        return f"{duration(1 / rate)} per {unit}"
    return f"{rate:.2g} {_plural(unit)}/s" if rate < 10 else f"{rate:,.0f} {_plural(unit)}/s"


def _colored(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def _rich_console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=True,
        no_color=not _colored(stream),
        markup=False,
        emoji=False,
        highlight=False,
    )


def _moving_bar() -> RichProgress:
    from rich.progress import BarColumn, Progress, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Facts(TextColumn):
        """One line; where the terminal is too narrow, these are cut and not what the bar is of."""

        def render(self, task: Task) -> Text:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        Facts("{task.fields[facts]}", markup=False, table_column=Column()),
        console=_rich_console(sys.stdout),
        refresh_per_second=4,
    )


def _print(text: str, stream: TextIO, style: str) -> None:
    if _bars and is_terminal(stream):
        from rich.text import Text

        # Even a warning goes through the bar's own console, or the bar would be drawn over it.
        _bars[0].console.print(Text(text, style=style), soft_wrap=True)
    elif style and _colored(stream):
        _rich_console(stream).print(text, style=style, soft_wrap=True)
    else:
        print(text, file=stream, flush=True)


def _log(level: int, text: str) -> None:
    for log in _logs:
        log.line(level, text)
