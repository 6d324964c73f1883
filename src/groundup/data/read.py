"""The one way from files to records: each row recognised, counted, parsed or set aside."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

from groundup.config.schema import DataSettings
from groundup.data.documents import parse_text, text_pieces
from groundup.data.files import PYTHON_DOCS, ROW_SUFFIXES, files_of, read_rows, suffix_of
from groundup.data.layouts import Kind, Parsed, Record
from groundup.data.ledger import Ledger
from groundup.data.oasst_flat import MessageTrees, TreeMessage
from groundup.data.raw import RawRow
from groundup.data.recognise import SAMPLE_ROWS, Recognised, check_columns, layout_of, recognise, renamed
from groundup.data.splits import Choice
from groundup.data.stdlib import read_python_docs
from groundup.data.types import BadRow, Conversation, Document, Pair, Unwanted
from groundup.errors import UserError

MOST_COLUMNS = 1000
MOST_UNREADABLE = 1000
"""So many rows are looked at to find SAMPLE_ROWS that can be read."""
LICENCE_NOTE = "Project Gutenberg licence removed"


def read_documents(spec: DataSettings, ledger: Ledger) -> Iterator[Document]:
    """Documents in file order, not cleaned yet.

    Each was entered into the ledger; keeping, filtering or deduplicating it is up to the caller. Broken ones are
    quarantined here. Raises UserError for unusable files, and, at the end, for too many broken ones.
    """
    for record in read_records(spec, ledger, "documents"):
        yield cast(Document, record)


def read_conversations(spec: DataSettings, ledger: Ledger) -> list[Conversation]:
    """All usable conversations in file order, kept. Raises UserError for unusable files, and too many bad rows."""
    return [cast(Conversation, record) for record in _kept(spec, ledger, "conversations")]


def read_labelled(spec: DataSettings, ledger: Ledger) -> list[Conversation]:
    """All conversations with their `label`, also those whose answer is a bad one; a pair becomes two, as in TRL.

    A row without a label is bad. Raises as `read_conversations` does.
    """
    if not holds_pairs(spec):
        return [cast(Conversation, record) for record in _kept(spec, ledger, "conversations", labels=True)]
    found = []
    for pair in read_pairs(spec, ledger):
        ledger.enter()  # each answer counts as a row
        ledger.keep()
        ledger.notes["pair taken apart into two labelled answers"] += 1
        for label, side in ((True, pair.chosen), (False, pair.rejected)):
            messages = (*pair.prompt, *side)
            found.append(Conversation(messages, pair.origin, pair.tools, len(pair.prompt), label))
    return found


def read_pairs(spec: DataSettings, ledger: Ledger) -> list[Pair]:
    """All usable pairs in file order, kept. Raises UserError for unusable files, and too many bad rows."""
    return [cast(Pair, record) for record in _kept(spec, ledger, "pairs")]


def _kept(spec: DataSettings, ledger: Ledger, kind: Kind, labels: bool = False) -> Iterator[Record]:
    for record in read_records(spec, ledger, kind, labels):
        ledger.keep()
        yield record


def recognise_first(spec: DataSettings, wanted: Kind | None = None) -> Recognised:
    """What the rows of the first file with rows are. Raises UserError."""
    check_columns(spec, wanted)
    _check_files_columns(spec)
    for name in spec.path:
        for path in _row_files(name, spec, wanted).files:
            if rows := _sample(read_rows(path)):
                return recognise(rows, spec, wanted)
    raise no_rows(", ".join(spec.path))


def holds_pairs(spec: DataSettings) -> bool:
    """Whether the rows are pairs."""
    return recognise_first(spec).kind == "pairs"


def read_records(spec: DataSettings, ledger: Ledger, kind: Kind, labels: bool = False) -> Iterator[Record]:
    """Records of a kind in file order; each row is entered into the ledger, bad ones are quarantined.

    labels: conversations are wanted with their label, whatever it says; otherwise those with a bad answer are filtered.
    What is yielded has no verdict yet. Raises UserError for unusable files, and, at the end, for too many bad rows.
    """
    check_columns(spec, kind)
    _check_files_columns(spec)
    with MessageTrees(kind) as trees:
        for record in _rows(spec, ledger, kind, labels):
            if isinstance(record, TreeMessage):
                trees.add(record, ledger)
            else:
                yield record
        yield from trees.joined(ledger)
    ledger.check(spec.max_bad_rows)


def _rows(spec: DataSettings, ledger: Ledger, kind: Kind, labels: bool) -> Iterator[Parsed]:
    """What stands in each row, in file order."""
    last = ledger.rows_in + spec.subset if spec.subset else None
    only_text = True
    for name in spec.path:
        before = ledger.rows_in
        choice = _files(name, spec, kind)
        if choice.said:
            ledger.splits[name] = choice.said
        paths: list[Path | None] = [None] if name == PYTHON_DOCS else [*choice.files]
        for path in paths:  # None is the standard library
            if last is not None and ledger.rows_in >= last:
                break
            yield from _records(path, spec, ledger, kind, last, labels)
            only_text = only_text and (path is None or _is_text(path))
        if ledger.rows_in == before and (last is None or before < last):
            raise no_rows(name)
    if only_text and (setting := "layout" if spec.layout else "columns" if spec.columns else ""):
        raise UserError(
            f"`{setting}` would do nothing: this is plain text.",
            where=", ".join(spec.path),
            fix="take it out; it says how rows of .jsonl, .csv and the like are laid out",
        )


def _check_files_columns(spec: DataSettings) -> None:
    """UserError where `columns` names a column that no row has: it would do nothing.

    Most often the first row shows that all are there; rows are looked at until then.
    """
    missing = set(spec.columns.values())
    found: dict[str, None] = {}
    for name in spec.path if missing else []:
        for path in [] if name == PYTHON_DOCS else files_of(name, spec).files:
            for row in [] if _is_text(path) else read_rows(path):
                if _readable(row):
                    missing -= row.value.keys()
                    found |= dict.fromkeys(row.value) if len(found) < MOST_COLUMNS else {}
                if not missing:
                    return
    if missing and found:  # without any row something else is said
        name = min(missing)
        near = difflib.get_close_matches(name, found, 1)
        raise UserError(
            f"columns names {name!r}, which no row has.",
            where=", ".join(spec.path),
            why=f"on the left stands our name, on the right the file's; the rows have {', '.join(list(found)[:12])}",
            fix=f"did you mean {near[0]}?" if near else "take it out, or name one of these",
        )


def raw_rows(spec: DataSettings, ledger: Ledger) -> Iterator[RawRow]:
    """Rows as they stand in the files, each entered into the ledger; the caller owes a verdict. Raises UserError."""
    last = ledger.rows_in + spec.subset if spec.subset else None
    for name in spec.path:
        before = ledger.rows_in
        choice = _row_files(name, spec, "prompts")
        if choice.said:
            ledger.splits[name] = choice.said
        for row in chain.from_iterable(map(read_rows, choice.files)):
            if last is not None and ledger.rows_in >= last:
                return
            ledger.enter()
            yield row
        if ledger.rows_in == before:
            raise no_rows(name)


def _is_text(path: Path) -> bool:
    return suffix_of(path) not in ROW_SUFFIXES


def no_rows(name: str) -> UserError:
    return UserError("The data is empty.", where=name, fix="name a file with rows in it")


def _files(name: str, spec: DataSettings, kind: Kind) -> Choice:
    if kind != "documents":
        return _row_files(name, spec, kind)
    return Choice([]) if name == PYTHON_DOCS else files_of(name, spec)


def _row_files(name: str, spec: DataSettings, wanted: Kind | None) -> Choice:
    """The files with rows that a name means. UserError where there is only text."""
    choice = Choice([]) if name == PYTHON_DOCS else files_of(name, spec)
    files = [path for path in choice.files if suffix_of(path) in ROW_SUFFIXES]
    if not files and wanted != "documents":
        raise UserError(
            "There is plain text where rows are needed.",
            where=name,
            fix=f"name a file with rows: {' '.join(ROW_SUFFIXES)}",
        )
    return Choice(files, choice.said)


def _records(
    path: Path | None, spec: DataSettings, ledger: Ledger, kind: Kind, last: int | None, labels: bool
) -> Iterator[Parsed]:
    """What stands in one file, or of the standard library where there is none."""
    if path is None or _is_text(path):
        for row in _texts(path, ledger):
            if last is not None and ledger.rows_in >= last:
                return
            if record := _parsed(row, None, spec, ledger, labels):
                yield record
        return
    rows = read_rows(path)
    recognised: Recognised | None = None
    while sample := _sample(rows):
        rest: Iterable[RawRow] = sample
        if any(_readable(row) for row in sample):
            recognised = recognise(sample, spec, kind)
            ledger.recognise(str(path), recognised)
            rest = chain(sample, rows)
        for row in rest:
            if last is not None and ledger.rows_in >= last:
                return
            if record := _parsed(row, recognised, spec, ledger, labels):
                yield record


def _texts(path: Path | None, ledger: Ledger) -> Iterator[RawRow]:
    if path is None:
        return (RawRow(document.origin, {"text": document.text}) for document in read_python_docs())

    def note() -> None:
        ledger.notes[LICENCE_NOTE] += 1

    return text_pieces(path, note)


def _parsed(
    row: RawRow, recognised: Recognised | None, spec: DataSettings, ledger: Ledger, labels: bool
) -> Parsed | None:
    """What stands in the row, or None and a verdict in the ledger. Plain text has no layout."""
    ledger.enter()
    try:
        return _with_label(_parse(row, recognised, spec), labels)
    except Unwanted as reason:
        ledger.filter(str(reason))
    except BadRow as error:
        ledger.quarantine(row.origin, str(error), row.value)
    return None


def _parse(row: RawRow, recognised: Recognised | None, spec: DataSettings) -> Parsed:
    if row.problem:
        raise BadRow(row.problem)
    if not isinstance(row.value, dict):
        raise BadRow("not a JSON object")
    if recognised is None:
        return parse_text(row.value, row.origin)
    values = renamed(row.value, spec.columns) if spec.columns else row.value
    return layout_of(values, recognised).parse(values, row.origin)


def _with_label(record: Parsed, labels: bool) -> Parsed:
    """The record where its label is wanted, without it where only good answers are."""
    if not isinstance(record, Conversation):
        return record
    if labels and record.label is None:
        raise BadRow("no label: neither true nor false")
    if not labels and record.label is False:
        raise Unwanted("label is false")
    return record if labels or record.label is None else replace(record, label=None)


def _readable(row: RawRow) -> bool:
    return not row.problem and isinstance(row.value, dict)


def _sample(rows: Iterator[RawRow]) -> list[RawRow]:
    """Rows up to the SAMPLE_ROWS-th readable one, or MOST_UNREADABLE in all."""
    sample: list[RawRow] = []
    readable = 0
    while readable < SAMPLE_ROWS and len(sample) < MOST_UNREADABLE and (row := next(rows, None)):
        sample.append(row)
        readable += _readable(row)
    return sample
