"""A file of documents in blocks of whole lines, and any one of its documents by where it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from groundup.data.dedup.shingles import I64
from groundup.errors import UserError

BLOCK_BYTES = 1 << 20
"""A block is one job; within it arrays are of a part of its text at a time."""


@dataclass(frozen=True)
class Block:
    """`lines` lines from byte `offset` on; the first one is document number `first`."""

    first: int
    lines: int
    offset: int
    bytes: int


def blocks_of(documents: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Blocks of at least `block_bytes`, but for the last, each ending with a line."""
    first = offset = 0
    with documents.open("rb") as file:
        while data := file.read(block_bytes):
            if not data.endswith(b"\n"):
                data += file.readline()
            lines = data.count(b"\n") + (not data.endswith(b"\n"))
            yield Block(first, lines, offset, len(data))
            first, offset = first + lines, offset + len(data)


def read_block(documents: Path, block: Block) -> tuple[list[str], I64]:
    """The texts of a block, and the byte at which each line begins."""
    with documents.open("rb") as file:
        file.seek(block.offset)
        data = file.read(block.bytes)
    lines = data.removesuffix(b"\n").split(b"\n")
    size = np.fromiter((len(line) + 1 for line in lines), np.int64, len(lines))
    offset = block.offset + np.cumsum(size) - size
    return [_text(line, documents, block.first + i) for i, line in enumerate(lines)], offset


def read_at(documents: Path, offset: I64) -> Iterator[str]:
    """The texts of the lines that begin at these bytes, in the order given."""
    with documents.open("rb") as file:
        for place in offset.tolist():
            file.seek(place)
            yield _text(file.readline(), documents, None)


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:  # half of a surrogate pair is for json to read
        return json.loads(line)


def _text(line: bytes, documents: Path, number: int | None) -> str:
    try:
        text = _parsed(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        text = error
    if isinstance(text, str):
        return text
    where = str(documents) if number is None else f"{documents}:{number + 1}"
    why = f"{type(text).__name__}: {text}" if isinstance(text, Exception) else "its text is no string"
    raise UserError(
        "A line is no document.", where=where, why=why, fix='Each line must be JSON with a "text".'
    ) from None
