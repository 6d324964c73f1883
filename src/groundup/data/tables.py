"""Rows of .csv, .tsv, .parquet and .arrow files, read as a stream."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from groundup.data.raw import RawRow, opened
from groundup.data.types import Origin
from groundup.errors import UserError, unreadable

BATCH_ROWS = 1024
BOM = b"\xef\xbb\xbf"
LONGEST_CELL = 2**31 - 1  # the module's own limit is 131,072 characters; a long is no larger on Windows


class _Lines:
    """A binary file's lines as text, for the csv module; tells where the last one that was taken ends.

    Bytes that are no UTF-8 become lone surrogates.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.line, self.byte = 0, 0
        self.bad = False  # since the last look at it

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            said = line.removeprefix(BOM) if self.line == 0 else line
            try:
                text = said.decode()
            except UnicodeDecodeError:
                text, self.bad = said.decode("utf-8", "surrogateescape"), True
            self.line += 1
            self.byte += len(line)
            yield text


def csv_rows(path: Path, delimiter: str) -> Iterator[RawRow]:
    """The rows below the header; every value is text. A row with too few or too many fields has a problem.

    A .csv file whose header has no comma may be separated by semicolons or tabs. Raises UserError for a header that
    is none, and a quoted field that never ends.
    """
    csv.field_size_limit(LONGEST_CELL)
    with opened(path) as file:
        lines = _Lines(file)
        taken = iter(lines)
        first = next((line for line in taken if line.strip()), "")
        if delimiter not in first:
            delimiter = next((mark for mark in ";\t" if mark in first), delimiter)
        header = _header(path, first, taken, delimiter, lines)
        if lines.bad:
            raise UserError(
                "The first line is not valid UTF-8.",
                where=f"{path}:{lines.line}",
                fix="save the file as UTF-8",
            )
        reader = csv.reader(taken, delimiter=delimiter, strict=True)
        while True:
            origin = Origin(str(path), lines.line + 1, lines.byte)
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    raise _unended(origin) from error
                yield RawRow(origin, "", f"not valid CSV: {error}")
                lines.bad = False
                reader = csv.reader(taken, delimiter=delimiter, strict=True)
                continue
            if cells:
                yield _row(origin, header, cells, lines.bad)
            lines.bad = False


def _header(path: Path, first: str, taken: Iterator[str], delimiter: str, lines: _Lines) -> list[str]:
    """The columns' names, which may go over several lines too."""
    if not first:
        return []
    try:
        names = next(csv.reader(_put_back(first, taken), delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration) as error:
        raise _unended(Origin(str(path), 1)) from error
    names = [name.strip() for name in names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            "The first line does not name the columns.",
            where=f"{path}:{lines.line}",
            why=f"{twice!r} stands there twice",
            fix="put a line with the columns' names first, each once",
        )
    return names


def _put_back(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _row(origin: Origin, header: list[str], cells: list[str], bad: bool) -> RawRow:
    if bad:
        text = ",".join(cells).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return RawRow(origin, text, "not valid UTF-8")
    if len(cells) != len(header):
        few = "fewer" if len(cells) < len(header) else "more"
        return RawRow(origin, cells, f"{few} fields than columns")
    return RawRow(origin, dict(zip(header, cells)))


def _unended(origin: Origin) -> UserError:
    return UserError(
        "A quoted field never ends.",
        where=str(origin),
        why='a field that begins with " goes on to the next one, over as many lines as it takes',
        fix='close it, or write "" for a quotation mark inside of quoted text',
    )


def arrow_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a .parquet or .arrow file (Arrow's stream or file format); the line is the row's number."""
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            try:
                rows: list[Any] = batch.to_pylist()
            except UnicodeDecodeError:
                rows = [_row_alone(batch, i) for i in range(batch.num_rows)]
            for row in rows:
                number += 1
                problem = "not valid UTF-8" if isinstance(row, str) else ""
                yield RawRow(Origin(str(path), number), row, problem)
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, number, error) from error
        raise unreadable(path, error) from error
    except (pyarrow.ArrowException, ValueError) as error:
        raise _damaged(path, number, error) from error


def _damaged(path: Path, rows: int, error: Exception) -> UserError:
    return UserError(
        f"The file is no {path.suffix.lower()} file, or it is damaged.",
        where=f"{path}:{rows + 1}" if rows else str(path),
        why=(str(error).splitlines() or ["it cannot be read"])[0],
        fix="fetch or write it again",
    )


def _row_alone(batch: Any, index: int) -> Any:
    """One row; what can be read of it as text where it holds bytes that are no UTF-8."""
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "replace")


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc

    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            yield from table.iter_batches(BATCH_ROWS)
        return
    with pyarrow.OSFile(str(path)) as file:
        try:
            reader = ipc.open_stream(file)  # what `datasets` writes
        except pyarrow.ArrowInvalid:
            file.seek(0)
            with ipc.open_file(file) as whole:
                for index in range(whole.num_record_batches):
                    yield from _slices(whole.get_batch(index))
            return
        with reader:
            for batch in reader:
                yield from _slices(batch)


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)
