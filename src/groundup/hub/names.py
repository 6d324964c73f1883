"""Telling paths from hub names, and helping with paths that are not there."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from groundup.errors import UserError, unreadable

# "Qwen2.5-0.5B" has a dot too, so only endings that files really have make a name a file's
FILE_SUFFIXES = frozenset(
    [".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".md"]
    + [".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst", ".xz", ".zip"]
)
HUB_NAME = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?")


def find_local(name: str, relative_to: Path | None) -> Path | None:
    """The existing file or folder of that name: below `relative_to` first, then below the current folder."""
    path = Path(name).expanduser()
    for candidate in [relative_to / path, path] if relative_to else [path]:
        try:
            candidate.stat()  # `exists` hides from Python 3.14 on that a folder above may not be read
            return candidate.resolve()
        except PermissionError as error:
            raise unreadable(candidate, error) from error
        except (OSError, ValueError):  # it is not there, or no name of a file
            continue
    return None


def looks_like_path(name: str) -> bool:
    """Whether a name that does not exist here must have been meant as a path: a hub name is NAME or ORG/NAME."""
    first = Path(name).parts[:1]
    return (
        name.startswith((".", "/", "~", "runs/"))
        or "\\" in name
        or name.endswith("/")
        or name.count("/") > 1
        or Path(name).suffix.lower() in FILE_SUFFIXES
        or ("/" in name and Path(*first).is_dir())  # runs/demp beside an existing runs/
        or not HUB_NAME.fullmatch(name)
    )


def missing_path(name: str, what: str, where: str = "") -> UserError:
    path = Path(name).expanduser()
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if parent != path.parent:
        why = f"the folder {path.parent} does not exist; the nearest one that does is {parent.resolve()}"
    else:
        why = f"the folder {parent.resolve()} has no {path.name!r} in it"
    near = near_names(path.name, parent) if parent == path.parent else []
    fix = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "check the path; a relative one starts at the current folder"
    )
    return UserError(f"There is no {what} at {name}.", where=where, why=why, fix=fix)


def near_names(name: str, parent: Path) -> list[str]:
    """Paths beside the missing one that are spelled much like it."""
    try:
        present = [child.name for child in parent.iterdir()]
    except OSError:
        return []
    return [str(parent / close) for close in difflib.get_close_matches(name, present, n=2)]
