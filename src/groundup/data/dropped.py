"""Documents that were dropped, where a person can read them: one line each, with the reason and how the text begins."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from groundup.data.types import Origin
from groundup.store.files import to_json

BEGINNING_CHARS = 1000
SAMPLE_CHARS = 200
SAMPLES_PER_REASON = 2
MOST_SAMPLES = 12


class Dropped:
    """A file of lines {"path", "line", "reason", "detail", "text"}; an older one is replaced. A context manager.

    samples: the first few of each reason, for a report.
    """

    def __init__(self, path: Path) -> None:
        self.samples: list[dict[str, str]] = []
        self._counts: Counter[str] = Counter()
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, origin: Origin, reason: str, text: str, detail: str = "") -> None:
        line: dict[str, Any] = {"path": origin.path, "line": origin.line, "reason": reason}
        line |= {"detail": detail} if detail else {}
        self._file.write(to_json(line | {"text": text[:BEGINNING_CHARS]}) + "\n")
        self._counts[reason] += 1
        if self._counts[reason] <= SAMPLES_PER_REASON and len(self.samples) < MOST_SAMPLES:
            self.samples.append({"reason": reason, "text": text[:SAMPLE_CHARS]})

    def __enter__(self) -> Dropped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
