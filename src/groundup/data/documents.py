"""Documents for pretraining: whole small text files, pieces of large ones, the `text` column of rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
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
a part can be held out even of a single book: at blank lines; a longer paragraph at line ends; a longer line at spaces."""
LICENCE_NOTE = "Project Gutenberg licence removed"


def read_documents(spec: DataSettings, ledger: Ledger) -> Iterator[Document]:
    """Documents in file order, not cleaned yet.

    Each was entered into the ledger; keeping, filtering or deduplicating it is up to the caller. Broken ones are
    quarantined here. Raises UserError for unusable files, and, at the end, for too many broken ones.
    """
    check_columns(spec, ["text"])
    yield from read_records(spec, ledger, _parse, "text", source=_raw_documents(spec, ledger), keep=False)


def _parse(row: dict[str, Any], origin: Origin) -> Document:
    if "text" not in row:
        raise UnknownLayout(list(row), _which_column(row))
    text = string(row, "text")
    if not text.strip():
        raise BadRow("empty text")
    return Document(text, origin)


def _which_column(row: dict[str, Any]) -> str:
    """The remedy for a row without `text`: its longest string is most likely the text."""
    longest = max((name for name in row if isinstance(row[name], str)), key=lambda name: len(row[name]), default="")
    return f"say in the recipe which column is the text: columns: {{text: {longest}}}" if longest else ""


def _raw_documents(spec: DataSettings, ledger: Ledger) -> Iterator[RawRow]:
    for name in spec.path:
        empty = True
        for row in _raw_documents_of(name, ledger):
            empty = False
            yield row
        if empty:
            raise no_rows(name)


def _raw_documents_of(name: str, ledger: Ledger) -> Iterator[RawRow]:
    if name == PYTHON_DOCS:
        yield from (RawRow(document.origin, {"text": document.text}) for document in read_python_docs())
        return
    for path in files_of(name):
        yield from _pieces(path, ledger) if suffix_of(path) in TEXT_SUFFIXES else read_rows(path)
