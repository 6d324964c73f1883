"""A row that was read and not looked into yet, and files opened as the bytes that were packed."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from groundup.data.types import Origin
from groundup.errors import UserError, unreadable

if sys.version_info >= (3, 14):
    zstd = import_module("compression.zstd")
else:
    from backports import zstd

PACKINGS = (".gz", ".zst", ".bz2", ".xz")
BLOCK_BYTES = 1 << 20
_WIDE = {  # longer marks first: one begins with the other
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_UNMARKED = {b"x000": "UTF-32LE", b"000x": "UTF-32BE", b"x0x0": "UTF-16LE", b"0x0x": "UTF-16BE"}
"""Which of the first four bytes are zero where no mark stands, for two characters of ASCII (RFC 4627, 3)."""


@dataclass(frozen=True)
class RawRow:
    """One row of a file. `problem` says why it could not be read; `value` is then its text."""

    origin: Origin
    value: Any
    problem: str = ""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked. UserError where it cannot be read, also while it is being read.

    UTF-16 and UTF-32 are refused as well: places are bytes of UTF-8, and every row would be said to be broken.
    """
    try:
        with path.open("rb") as raw, _unpacked(raw, path.suffix.lower()) as file:
            _check_encoding(path, file)
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of bad data
            raise damaged(path, error) from error
        raise unreadable(path, error) from error


def _check_encoding(path: Path, file: Any) -> None:
    beginning = file.peek(4)[:4]
    name = next((name for mark, name in _WIDE.items() if beginning.startswith(mark)), "")
    name = name or _UNMARKED.get(bytes(ord("x") if byte else ord("0") for byte in beginning), "")
    if name:
        raise UserError(
            f"The file is {name}, and UTF-8 is needed.",
            where=str(path),
            why="its first bytes say so",
            fix=f"save it as UTF-8 in an editor, or make a copy: iconv -f {name} -t UTF-8 FILE > COPY",
        )


def damaged(path: Path, error: Exception) -> UserError:
    why = str(error) or "it ends too early"
    return UserError(
        "The compressed file is damaged.", where=str(path), why=why, fix="fetch or pack it again"
    )


def _unpacked(raw: IO[bytes], suffix: str) -> Any:
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), BLOCK_BYTES)
    if suffix == ".bz2":
        return io.BufferedReader(bz2.BZ2File(raw), BLOCK_BYTES)
    if suffix == ".xz":
        return io.BufferedReader(lzma.LZMAFile(raw), BLOCK_BYTES)
    if suffix == ".zst":
        return io.BufferedReader(zstd.ZstdFile(raw), BLOCK_BYTES)
    return raw
