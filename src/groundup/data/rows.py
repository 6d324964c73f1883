"""The one way from a file's rows to records: columns renamed, each row counted, bad ones set aside."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from groundup.config.schema import DataSettings
from groundup.data.files import PYTHON_DOCS, ROW_SUFFIXES, RawRow, files_of, read_rows, suffix_of
from groundup.data.ledger import Ledger
from groundup.data.messages import BadRow
from groundup.data.types import Origin
from groundup.errors import UserError

Record = TypeVar("Record")
Parser = Callable[[dict[str, Any], Origin], Record]
ROWS_UNTIL_UNKNOWN = 100
"""A file without a single known row is another thing than was asked for; after so many rows we need not read on."""


class Unwanted(Exception):
    """Why a whole row is filtered."""


class UnknownLayout(BadRow):
    """The row's columns are none of the accepted layouts."""

    def __init__(self, columns: list[str], hint: str = "") -> None:
        shown = ", ".join(name[:40] for name in columns[:12]) or "none"
        super().__init__(f"unknown layout with the columns {shown}")
        self.columns = shown
        self.hint = hint


def raw_rows(spec: DataSettings) -> Iterator[RawRow]:
    """The rows of all row files that are meant. UserError for a name that yields none."""
    for name in spec.path:
        files = [] if name == PYTHON_DOCS else [p for p in files_of(name) if suffix_of(p) in ROW_SUFFIXES]
        if not files:
            raise UserError(
                "There is plain text where rows are needed.",
                where=name,
                fix=f"name a file with rows: {' '.join(ROW_SUFFIXES)}, each also with .gz behind it",
            )
        empty = True
        for path in files:
            for row in read_rows(path):
                empty = False
                yield row
        if empty:
            raise no_rows(name)


def no_rows(name: str) -> UserError:
    return UserError("The data is empty.", where=name, fix="name a file with rows in it")


def read_records(
    rows: Iterator[RawRow], spec: DataSettings, ledger: Ledger, parse: Parser[Record], layouts: str
) -> Iterator[Record]:
    """Records in the order of `rows`; each row is entered into the ledger, bad ones are quarantined.

    What is yielded has no verdict yet. Too many bad rows raise UserError at the end.

    layouts: the accepted ones in words, for the error when not a single row has one of them.
    """
    known: set[str] = set()
    unknown: dict[str, list[UserError]] = {}  # by file
    for row in islice(rows, spec.subset or None):
        ledger.enter()
        try:
            record = parse(_renamed(row, spec.columns), row.origin)
        except Unwanted as reason:
            ledger.filter(str(reason))
        except BadRow as error:
            ledger.quarantine(row.origin, str(error), row.value)
            if isinstance(error, UnknownLayout):
                problems = unknown.setdefault(row.origin.path, [])
                problems.append(_unknown_layout(error, row.origin, layouts))
                if row.origin.path not in known and len(problems) >= ROWS_UNTIL_UNKNOWN:
                    break
                continue
            if row.problem or not isinstance(row.value, dict):
                continue
        else:
            yield record
        known.add(row.origin.path)
    for path, problems in unknown.items():
        if path not in known:
            raise problems[0]
    ledger.check(spec.max_bad_rows)


def read_all(spec: DataSettings, ledger: Ledger, parse: Parser[Record], layouts: str) -> list[Record]:
    """All records of the row files, kept."""
    records = []
    for record in read_records(raw_rows(spec), spec, ledger, parse, layouts):
        ledger.keep()
        records.append(record)
    return records


def check_columns(spec: DataSettings, ours: Iterable[str]) -> None:
    """UserError when `columns` names something that no layout has: it would do nothing."""
    allowed = sorted(ours)
    for name in spec.columns:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            raise UserError(
                f"columns names {name!r}, which is no column here.",
                why="on the left stands our name, on the right the file's",
                fix=f"did you mean {near[0]}?" if near else f"our names are {', '.join(allowed)}",
            )


def _renamed(row: RawRow, columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names. A file's column that was given a name of ours loses its old one."""
    if row.problem:
        raise BadRow(row.problem)
    if not isinstance(row.value, dict):
        raise BadRow("not a JSON object")
    kept = {
        name: value
        for name, value in row.value.items()
        if name not in columns.values() and name not in columns
    }
    return kept | {ours: row.value[theirs] for ours, theirs in columns.items() if theirs in row.value}


def _unknown_layout(error: UnknownLayout, origin: Origin, layouts: str) -> UserError:
    return UserError(
        "The columns are none that can be used here.",
        where=str(origin),
        why=f"found {error.columns}; accepted are {layouts}",
        fix=error.hint or "say in the recipe which column is which, for example columns: {question: input}",
    )
