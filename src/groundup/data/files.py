"""Files on disk to raw rows: which files a recipe means, and what stands on each line of them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundup.config.schema import DataSettings
from groundup.data.configs import DEFAULT, choose_config
from groundup.data.jsonrows import json_lines, json_rows
from groundup.data.raw import PACKINGS, RawRow
from groundup.data.splits import Choice, choose_from, choose_split
from groundup.data.stdlib import stdlib_files
from groundup.data.tables import arrow_rows, csv_rows
from groundup.errors import UserError
from groundup.hub import HubDataset, find_dataset, resolve_data
from groundup.hub.names import find_local

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
    """The readable files that one file, folder, glob, hub name or builtin:NAME means, sorted; of one split.

    Of a hub's data set only these are downloaded. Raises UserError.
    """
    if name.startswith(BUILTIN):
        _refuse_config(name, spec)
        return Choice(stdlib_files() if name == PYTHON_DOCS else [_shipped_file(name)])
    if dataset := find_dataset(name):
        choice = choose_of_hub(dataset, spec)
        return Choice(dataset.fetch([path.as_posix() for path in choice.files]), choice.said)
    paths = resolve_data(name)
    readable = [path for path in paths if is_readable(path)]
    if not readable:
        raise _unknown_kind(name, paths)
    root = find_local(name, None)
    if root is None or not root.is_dir():
        _refuse_config(name, spec)
        return choose_split(name, readable, spec)
    card = root / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    names = [path.relative_to(root).as_posix() for path in readable]
    choice = _choose(name, names, text, spec, root)
    return Choice([root / path for path in choice.files], choice.said)


def choose_of_hub(dataset: HubDataset, spec: DataSettings) -> Choice:
    """The files to fetch of a hub's data set, by their names in it. Raises UserError."""
    paths = [Path(name) for name in dataset.files]
    names = [path.as_posix() for path in sorted(paths) if is_readable(path) and not _is_hidden(path)]
    if not names:
        raise _unknown_kind(dataset.name, paths)
    return _choose(dataset.name, names, dataset.card, spec, None)


def _choose(name: str, names: Sequence[str], card: str, spec: DataSettings, root: Path | None) -> Choice:
    """Of these files those of one configuration and split, by their names below `root`, or in a hub's data set."""
    config = choose_config(name, spec.config, card, names)
    if config.splits is None:
        whole = [(root or Path()) / file for file in config.files]
        choice = choose_split(name, whole, spec, None if root else Path())
        files = [path.relative_to(root) if root else path for path in choice.files]
    else:
        found = {split: [Path(file) for file in files] for split, files in config.splits.items() if files}
        choice = choose_from(name, found, spec)
        files = choice.files
    said = [f"configuration {config.name}" if config.name != DEFAULT else "", choice.said]
    return Choice(files, ", ".join(filter(None, said)))


def is_readable(path: Path) -> bool:
    """Whether it is of a known kind, by its name."""
    return suffix_of(path) in TEXT_SUFFIXES + ROW_SUFFIXES


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _unknown_kind(name: str, paths: Sequence[Path]) -> UserError:
    endings = ", ".join(sorted({"".join(path.suffixes[-2:]) or path.name for path in paths})[:5])
    return UserError(
        "No file of a known kind.",
        where=name,
        why=f"it holds {endings or 'no files'}",
        fix=f"known are {' '.join(ROW_SUFFIXES + TEXT_SUFFIXES)}, each also with {' '.join(PACKINGS)} behind it",
    )


def _refuse_config(name: str, spec: DataSettings) -> None:
    if spec.config is not None:
        raise UserError(
            f"`config: {spec.config}` would do nothing.",
            where=name,
            why="configurations are parts of a hub's data set, or of a folder like one",
            fix="take it out, or name the data set",
        )


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
