"""Rows to documents for pretraining, and plain text files cut into documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.data.clean import book_span
from groundup.data.messages import string
from groundup.data.raw import RawRow, opened
from groundup.data.types import BadRow, Document, Origin

PIECE_BYTES = 8_000
"""A text file of up to twice this size is one document. A larger one is cut into pieces of about this size, so that
a part can be held out even of a single book: at blank lines, longer paragraphs at line ends, longer lines at spaces."""
_SEPARATORS = [re.compile(rb"\n[ \t\r]*\n"), re.compile(rb"\n"), re.compile(rb" ")]
BOOK_BYTES = 32_000_000
"""A larger file is no single book: it is read in blocks of this size, and no licence is looked for."""


def parse_text(row: dict[str, Any], origin: Origin) -> Document:
    """The column `text`. Raises BadRow."""
    text = string(row, "text")
    if not text.strip():
        raise BadRow("empty text")
    return Document(text, origin)


def text_pieces(path: Path, on_licence: Any = lambda: None) -> Iterator[RawRow]:
    """The documents of one text file as rows {"text"}. Bytes that are no UTF-8 cost only the piece they stand in.

    on_licence: called where Project Gutenberg's licence was cut off.
    """
    with opened(path) as file:
        data = file.read(BOOK_BYTES)
        start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        end, line, before = len(data), 1, 0
        whole = end < BOOK_BYTES
        if whole and (span := book_span(data)):
            on_licence()
            line += data.count(b"\n", 0, span[0])
            start, end = span
        while start < end:
            if not whole and end - start <= 2 * PIECE_BYTES:
                more = file.read(BOOK_BYTES)
                data, before, start = data[start:] + more, before + start, 0
                end, whole = len(data), len(more) < BOOK_BYTES
                continue
            cut = _next_cut(data, start, end)
            piece = data[start:cut]
            text = piece.lstrip()
            space = len(piece) - len(text)
            origin = Origin(str(path), line + piece.count(b"\n", 0, space), before + start + space)
            if text:
                yield _decoded(origin, text)
            line += piece.count(b"\n")
            start = cut


def _decoded(origin: Origin, text: bytes) -> RawRow:
    try:
        return RawRow(origin, {"text": text.decode("utf-8")})
    except UnicodeDecodeError as error:
        line = origin.line + text.count(b"\n", 0, error.start)
        bad = Origin(origin.path, line, (origin.byte or 0) + error.start)
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
