"""Files on disk to raw rows: which files a recipe means, and what stands on each line of them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path

from groundup.config.schema import DataSettings
from groundup.data.jsonrows import json_lines, json_rows
from groundup.data.raw import PACKINGS, RawRow
from groundup.data.splits import Choice, choose_split
from groundup.data.stdlib import stdlib_files
from groundup.data.tables import arrow_rows, csv_rows
from groundup.errors import UserError
from groundup.hub import resolve_data

TEXT_SUFFIXES = (".txt", ".md")
TABLE_SUFFIXES = (".csv", ".tsv")
ARROW_SUFFIXES = (".parquet", ".arrow")
"""Packed inside, and never by another program: reading them needs every place of the file."""
ROW_SUFFIXES = (".jsonl", ".json", *TABLE_SUFFIXES, *ARROW_SUFFIXES)
BUILTIN = "builtin:"
PYTHON_DOCS = "builtin:python-docs"


def data_paths(spec: DataSettings) -> list[Path]:
    """Every file that is read for these settings, in reading order. UserError where a name means nothing."""
    return [path for name in spec.path for path in files_of(name, spec).files]


def files_of(name: str, spec: DataSettings) -> Choice:
    """The readable files that one file, folder, glob, hub name or builtin:NAME means, sorted; of one split."""
    if name.startswith(BUILTIN):
        return Choice(stdlib_files() if name == PYTHON_DOCS else [_shipped_file(name)])
    paths = resolve_data(name)
    readable = [path for path in paths if suffix_of(path) in TEXT_SUFFIXES + ROW_SUFFIXES]
    if not readable:
        endings = ", ".join(sorted({"".join(path.suffixes[-2:]) or path.name for path in paths})[:5])
        raise UserError(
            "No file of a known kind.",
            where=name,
            why=f"it holds {endings}",
            fix=f"known are {' '.join(ROW_SUFFIXES + TEXT_SUFFIXES)}, each also with {' '.join(PACKINGS)} behind it",
        )
    return choose_split(name, readable, spec)


def suffix_of(path: Path) -> str:
    """The file's kind, without the packing behind it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = len(suffixes) > 1 and suffixes[-1] in PACKINGS
    kind = suffixes[-2] if packed else "".join(suffixes[-1:])
    return "" if packed and kind in ARROW_SUFFIXES else kind


def _shipped_file(name: str) -> Path:
    folder = Path(str(importlib.resources.files("groundup"))) / "recipes" / "data"
    path = folder / f"{name.removeprefix(BUILTIN)}.jsonl"
    if not path.is_file():
        known = [PYTHON_DOCS, *(BUILTIN + file.stem for file in sorted(folder.glob("*.jsonl")))]
        raise UserError(f"There is no {name}.", fix=f"known are {', '.join(known)}")
    return path


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file in order; broken ones come with a problem. UserError where the file itself is broken."""
    kind = suffix_of(path)
    if kind == ".jsonl":
        return json_lines(path)
    if kind == ".json":
        return json_rows(path)
    if kind in TABLE_SUFFIXES:
        return csv_rows(path, "\t" if kind == ".tsv" else ",")
    return arrow_rows(path)
