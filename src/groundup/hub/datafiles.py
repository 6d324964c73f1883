"""What the name of a data set stands for: a file, a folder, a glob, or a hub's data set."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import UserError, unreadable
from groundup.hub.download import Wanted, bring, download, plan_download
from groundup.hub.names import find_local, looks_like_path, missing_path

CARD = "README.md"
DATA_FILES = tuple(
    f"*{kind}{packing}"
    for kind in (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md")
    for packing in ("", ".gz", ".zst", ".bz2", ".xz")
) + ("*.parquet", "*.arrow")


@dataclass(frozen=True)
class HubDataset:
    """A hub's data set before its files are fetched: the names of all of them, and its README.md (may be empty)."""

    name: str
    files: tuple[str, ...]
    card: str

    def wanted(self, files: Sequence[str]) -> Wanted:
        return Wanted(self.name, "dataset", only=tuple(files))

    def fetch(self, files: Sequence[str]) -> list[Path]:
        """These files on this machine, in the same order. Raises UserError."""
        folder = download(self.wanted(files))
        return [folder / file for file in files]


def find_dataset(name: str, relative_to: str | Path | None = None) -> HubDataset | None:
    """What a hub's data set holds; None where `name` is a file, folder or glob here. Raises UserError."""
    start = Path(relative_to) if relative_to else None
    if find_local(name, start) or glob.has_magic(name) or looks_like_path(name):
        return None
    plan = plan_download(Wanted(name, "dataset", allow=(CARD,)))
    card = bring(plan) / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    return HubDataset(name, tuple(file.name for file in plan.listing.files), text)


def resolve_data(name: str, relative_to: str | Path | None = None) -> list[Path]:
    """The files that `name` means, sorted; a folder's are all below it that are not hidden.

    relative_to: the folder where relative paths start (then the current folder). Of a hub's data set all files are
    fetched, of every configuration and split. Raises UserError, also when a folder or a glob holds no file.
    """
    start = Path(relative_to) if relative_to else None
    if path := find_local(name, start):
        return _files_below(path) if path.is_dir() else [path]
    if glob.has_magic(name):
        return _glob(name, start)
    if looks_like_path(name):
        raise missing_path(name, "data file or folder")
    return _files_below(download(wanted_data(name)))


def wanted_data(name: str) -> Wanted:
    """All files with rows or text of a hub's data set."""
    return Wanted(name, "dataset", DATA_FILES)


def _files_below(folder: Path) -> list[Path]:
    """UserError where a folder below may not be looked into: what is in it would be left out without a word."""
    files = []
    for where, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(where, name) for name in names if not name.startswith(".")]
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise UserError(f"The folder {folder} holds no files.", fix="name a folder with data in it")
    return files


def _stop(error: OSError) -> None:
    raise unreadable(error.filename, error)


def _glob(pattern: str, relative_to: Path | None) -> list[Path]:
    full = str(Path(pattern).expanduser())
    for start in [relative_to, Path()] if relative_to else [Path()]:
        _check_readable(start / full)
        found = sorted(Path(match) for match in glob.glob(str(start / full), recursive=True))
        if files := [path.resolve() for path in found if path.is_file()]:
            return files
    raise UserError(
        f"No file matches {pattern}.",
        why=f"the search started at {(relative_to or Path()).resolve()}",
        fix="check the pattern; ** stands for folders of any depth",
    )


def _check_readable(pattern: Path) -> None:
    """UserError where a folder that the pattern looks into cannot be read, which `glob` passes over."""
    for count, part in enumerate(pattern.parts):
        if not glob.has_magic(part):
            continue
        above = Path(*pattern.parts[:count])
        for folder in glob.glob(str(above / "**/") if part == "**" else str(above), recursive=True):
            if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
                raise unreadable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
