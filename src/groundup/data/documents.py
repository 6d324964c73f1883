"""Documents for pretraining: whole small text files, pieces of large ones, the `text` column of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.config.schema import DataSettings
from groundup.data.clean import book_span
from groundup.data.files import PYTHON_DOCS, TEXT_SUFFIXES, RawRow, files_of, read_bytes, read_rows, suffix_of
from groundup.data.ledger import Ledger
from groundup.data.messages import BadRow, string
from groundup.data.rows import UnknownLayout, check_columns, no_rows, read_records
from groundup.data.stdlib import read_python_docs
from groundup.data.types import Document, Origin

PIECE_BYTES = 8_000
"""A text file of up to twice this size is one document. A larger one is cut into pieces of about this size, so that
a part can be held out even of a single book: at blank lines, longer paragraphs at line ends, longer lines at spaces."""
_SEPARATORS = [re.compile(rb"\n[ \t\r]*\n"), re.compile(rb"\n"), re.compile(rb" ")]
LICENCE_NOTE = "Project Gutenberg licence removed"


def read_documents(spec: DataSettings, ledger: Ledger) -> Iterator[Document]:
    """Documents in file order, not cleaned yet.

    Each was entered into the ledger; keeping, filtering or deduplicating it is up to the caller. Broken ones are
    quarantined here. Raises UserError for unusable files, and, at the end, for too many broken ones.
    """
    check_columns(spec, ["text"])
    yield from read_records(_raw_documents(spec, ledger), spec, ledger, _parse, "text")


def _parse(row: dict[str, Any], origin: Origin) -> Document:
    if "text" not in row:
        raise UnknownLayout(list(row), _which_column(row))
    text = string(row, "text")
    if not text.strip():
        raise BadRow("empty text")
    return Document(text, origin)


def _which_column(row: dict[str, Any]) -> str:
    """The remedy for a row without `text`: its longest string is most likely the text."""
    longest = max(
        (name for name in row if isinstance(row[name], str)), key=lambda name: len(row[name]), default=""
    )
    return f"say in the recipe which column is the text: columns: {{text: {longest}}}" if longest else ""


def _raw_documents(spec: DataSettings, ledger: Ledger) -> Iterator[RawRow]:
    column = spec.columns.get(
        "text", "text"
    )  # so that plain text needs no other settings than rows beside it
    for name in spec.path:
        empty = True
        for row in _raw_documents_of(name, column, ledger):
            empty = False
            yield row
        if empty:
            raise no_rows(name)


def _raw_documents_of(name: str, column: str, ledger: Ledger) -> Iterator[RawRow]:
    if name == PYTHON_DOCS:
        yield from (RawRow(document.origin, {column: document.text}) for document in read_python_docs())
        return
    for path in files_of(name):
        yield from _pieces(path, column, ledger) if suffix_of(path) in TEXT_SUFFIXES else read_rows(path)


def _pieces(path: Path, column: str, ledger: Ledger) -> Iterator[RawRow]:
    """The documents of one text file. Bytes that are no UTF-8 cost only the piece that they stand in."""
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    start, end, line = 0, len(data), 1
    if span := book_span(data):
        ledger.notes[LICENCE_NOTE] += 1
        line += data.count(b"\n", 0, span[0])
        start, end = span
    while start < end:
        cut = _next_cut(data, start, end)
        piece = data[start:cut]
        text = piece.lstrip()
        origin = Origin(str(path), line + piece.count(b"\n", 0, len(piece) - len(text)))
        if text:
            yield _decoded(origin, column, text)
        line += piece.count(b"\n")
        start = cut


def _decoded(origin: Origin, column: str, text: bytes) -> RawRow:
    try:
        return RawRow(origin, {column: text.decode("utf-8")})
    except UnicodeDecodeError as error:
        bad = Origin(origin.path, origin.line + text.count(b"\n", 0, error.start))
        return RawRow(bad, text.decode("utf-8", "replace"), "not valid UTF-8")


def _next_cut(data: bytes, start: int, end: int) -> int:
    """Where the piece that begins at `start` ends: the best place nearest to PIECE_BYTES."""
    if end - start <= 2 * PIECE_BYTES:
        return end
    window = data[start : start + 2 * PIECE_BYTES]
    for separator in _SEPARATORS:
        ends = [match.end() for match in separator.finditer(window, PIECE_BYTES // 4)]
        if ends:
            return start + min(ends, key=lambda place: abs(place - PIECE_BYTES))
    cut = start + PIECE_BYTES
    while cut > start + PIECE_BYTES - 4 and data[cut] & 0xC0 == 0x80:  # not inside of a character
        cut -= 1
    return cut
