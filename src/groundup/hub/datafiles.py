"""What the name of a data set stands for: a file, a folder, a glob, or a hub's data set."""

from __future__ import annotations

import glob
from pathlib import Path

from groundup.errors import UserError
from groundup.hub.download import Wanted, download
from groundup.hub.names import find_local, looks_like_path, missing_path

DATA_FILES = [
    f"*{kind}{packing}"
    for kind in (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md")
    for packing in ("", ".gz", ".zst", ".bz2", ".xz")
] + ["*.parquet", "*.arrow"]


def resolve_data(name: str, relative_to: str | Path | None = None) -> list[Path]:
    """The files that `name` means, sorted; a folder's are all below it that are not hidden.

    relative_to: the folder where relative paths start (then the current folder). Raises UserError, also when a
    folder or a glob holds no file.
    """
    start = Path(relative_to) if relative_to else None
    if path := find_local(name, start):
        return _files_below(path) if path.is_dir() else [path]
    if glob.has_magic(name):
        return _glob(name, start)
    if looks_like_path(name):
        raise missing_path(name, "data file or folder")
    return _files_below(download(Wanted(name, "dataset", allow=DATA_FILES)))


def _files_below(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise UserError(f"The folder {folder} holds no files.", fix="name a folder with data in it")
    return files


def _glob(pattern: str, relative_to: Path | None) -> list[Path]:
    full = str(Path(pattern).expanduser())
    for start in [relative_to, Path()] if relative_to else [Path()]:
        found = sorted(Path(match) for match in glob.glob(str(start / full), recursive=True))
        if files := [path.resolve() for path in found if path.is_file()]:
            return files
    raise UserError(
        f"No file matches {pattern}.",
        why=f"the search started at {(relative_to or Path()).resolve()}",
        fix="check the pattern; ** stands for folders of any depth",
    )
