"""A row that was read and not looked into yet, and files opened as the bytes that were packed."""

from __future__ import annotations

import bz2
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
from groundup.errors import UserError

if sys.version_info >= (3, 14):
    zstd = import_module("compression.zstd")
else:
    from backports import zstd

PACKINGS = (".gz", ".zst", ".bz2", ".xz")
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class RawRow:
    """One row of a file. `problem` says why it could not be read; `value` is then its text."""

    origin: Origin
    value: Any
    problem: str = ""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked. UserError where it cannot be read, also while it is being read."""
    try:
        with path.open("rb") as raw, _unpacked(raw, path.suffix.lower()) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of bad data
            raise damaged(path, error) from error
        raise UserError(
            "The file cannot be read.", where=str(path), why=error.strerror or str(error)
        ) from error


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
