"""A run's log file: what was said, what libraries logged and warned, and tracebacks, each line with its time."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

OURS = "groundup"


class RunLog(logging.FileHandler):
    """Appends to `path` until closed; raises OSError when that is impossible.

    While it is open, messages below INFO are kept for Groundup only, and handlers with which libraries print on
    the console are taken off. Libraries add them whenever they are first imported, so this is decided at each
    record: the record factory is the one place that sees every record before any handler does.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self._taken: list[tuple[logging.Logger, logging.Handler]] = []
        self._propagated: list[logging.Logger] = []
        self._factory = logging.getLogRecordFactory()
        self._levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in (None, OURS)]
        for logger, level in zip(
            (logger for logger, _ in self._levels), (logging.INFO, logging.DEBUG), strict=True
        ):
            logger.setLevel(level)
        logging.getLogger().addHandler(self)
        logging.setLogRecordFactory(self._record)
        logging.captureWarnings(True)

    def line(self, level: int, text: str) -> None:
        """Each line of `text` on a line of its own, also when nothing else would be logged."""
        for part in text.splitlines() or [""]:
            self.handle(
                logging.makeLogRecord(
                    {
                        "name": "console",
                        "levelno": level,
                        "msg": part,
                        "levelname": logging.getLevelName(level),
                    }
                )
            )

    def failure(self, problem: BaseException) -> None:
        """The whole traceback."""
        self.line(logging.ERROR, "".join(traceback.format_exception(problem)))

    def close(self) -> None:
        """Put everything back as it was."""
        if self in logging.getLogger().handlers:
            logging.getLogger().removeHandler(self)
            logging.setLogRecordFactory(self._factory)
            if not any(isinstance(handler, RunLog) for handler in logging.getLogger().handlers):
                logging.captureWarnings(False)
            for logger, level in self._levels:
                logger.setLevel(level)
            for logger, handler in self._taken:
                logger.addHandler(handler)
            for logger in self._propagated:
                logger.propagate = False
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is reported by what fails on it; the log must not print tracebacks of its own."""

    def _record(self, *arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = self._factory(*arguments, **keywords)
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            for handler in [handler for handler in logger.handlers if _prints(handler)]:
                logger.removeHandler(handler)
                self._taken.append((logger, handler))
            if not logger.propagate:
                logger.propagate = True
                self._propagated.append(logger)
            logger = logger.parent
        return record


def _prints(handler: logging.Handler) -> bool:
    """Whether a handler writes on the console."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and any(handler.stream is stream for stream in streams)
