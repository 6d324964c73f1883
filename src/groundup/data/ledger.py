"""The row ledger: every row that is read ends in exactly one place, and is counted there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.data.types import Origin
from groundup.errors import UserError
from groundup.store.files import append_jsonl

if TYPE_CHECKING:
    from groundup.data.recognise import Recognised

MOST_ROW_CHARS = 20_000
"""A longer quarantined row that is no JSON is cut in the quarantine file; its place in the source is there."""


class Ledger:
    """Counts in = kept + filtered + deduplicated + quarantined.

    A quarantined row is broken; a filtered or deduplicated one is whole, but not wanted. quarantine: a file that gets
    one line {"path", "line", "byte", "reason", "row"} a row; an older one is removed first.
    """

    def __init__(self, quarantine: Path | None = None) -> None:
        self.rows_in = 0
        self.kept = 0
        self.filtered: Counter[str] = Counter()
        self.deduplicated = 0
        self.quarantined: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        """What was done to rows that were kept; not part of the balance."""
        self.recognised: dict[str, str] = {}
        """What each file with rows was taken for, and why; in words."""
        self.splits: dict[str, str] = {}
        """Which split of a folder or data set is read, and which others it has; in words."""
        self._file = quarantine
        self._first_bad: tuple[Origin, str] | None = None
        if quarantine:
            quarantine.unlink(missing_ok=True)

    def enter(self) -> None:
        """A row was read. One of the verdicts below must follow."""
        self.rows_in += 1

    def keep(self) -> None:
        self.kept += 1

    def filter(self, reason: str) -> None:
        self.filtered[reason] += 1

    def deduplicate(self) -> None:
        self.deduplicated += 1

    def quarantine(self, origin: Origin, reason: str, row: Any) -> None:
        """The row is broken: counted, and written to the quarantine file."""
        self.quarantined[reason] += 1
        self._first_bad = self._first_bad or (origin, reason)
        if self._file:
            if isinstance(row, str):
                row = row[:MOST_ROW_CHARS]
            line = {
                "path": origin.path,
                "line": origin.line,
                "byte": origin.byte,
                "reason": reason,
                "row": row,
            }
            append_jsonl(
                self._file, json.loads(json.dumps(line, default=repr))
            )  # a table's cells may be no JSON

    def recognise(self, path: str, recognised: Recognised) -> None:
        """What a file's rows are taken for."""
        self.recognised[path] = f"{recognised.layout} ({recognised.kind}): {recognised.evidence}"

    def filter_kept(self, reason: str) -> None:
        """A row that was kept so far is not wanted after all."""
        self.kept -= 1
        self.filter(reason)

    def deduplicate_kept(self) -> None:
        """A row that was kept so far turned out to be a copy."""
        self.kept -= 1
        self.deduplicate()

    def quarantine_kept(self, origin: Origin, reason: str, row: Any) -> None:
        """A row that was kept so far turned out to be broken."""
        self.kept -= 1
        self.quarantine(origin, reason, row)

    @property
    def balanced(self) -> bool:
        """Whether every row that was read is in exactly one place."""
        placed = self.kept + self.filtered.total() + self.deduplicated + self.quarantined.total()
        return self.kept >= 0 and placed == self.rows_in

    def as_dict(self) -> dict[str, Any]:
        return {
            "in": self.rows_in,
            "kept": self.kept,
            "filtered": dict(self.filtered),
            "deduplicated": self.deduplicated,
            "quarantined": dict(self.quarantined),
            "notes": dict(self.notes),
            "recognised": dict(self.recognised),
            "splits": dict(self.splits),
        }

    def decisions(self) -> list[str]:
        """A line a decision: splits, and what the rows were taken for; files taken for the same share a line."""
        lines = [f"{name}: {said}" for name, said in self.splits.items()]
        files: dict[str, list[str]] = {}
        for path, said in self.recognised.items():
            files.setdefault(said.split(": ", 1)[0], []).append(path)
        for taken, paths in files.items():
            evidence = self.recognised[paths[0]].split(": ", 1)[1]
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            lines.append(f"{Path(paths[0]).name}{more}: {taken}: {evidence}")
        return lines

    def __str__(self) -> str:
        places = [f"{self.kept:,} kept"]
        places += [f"{count:,} {reason}" for reason, count in sorted(self.filtered.items())]
        if self.deduplicated:
            places.append(f"{self.deduplicated:,} duplicates")
        places += [f"{count:,} unusable ({reason})" for reason, count in self.quarantined.most_common()]
        return f"{self.rows_in:,} rows: {', '.join(places)}"

    def check(self, max_bad_rows: float, fix: str = "repair or remove the rows") -> None:
        """UserError when more than this share of the rows is quarantined, or all of them."""
        bad = self.quarantined.total()
        if self._first_bad is None or (bad <= max_bad_rows * self.rows_in and bad < self.rows_in):
            return
        origin, reason = self._first_bad
        reasons = ", ".join(f"{count:,} x {name}" for name, count in self.quarantined.most_common(5))
        listed = f" (all are listed in {self._file})" if self._file else ""
        remedy = f"; or raise max_bad_rows, which is {max_bad_rows:g}" if bad < self.rows_in else ""
        raise UserError(
            f"{bad:,} of {self.rows_in:,} rows cannot be used.",
            where=str(origin),
            why=f"{reason}" if bad == 1 else f"the first one: {reason}; all: {reasons}",
            fix=f"{fix}{listed}{remedy}",
        )
