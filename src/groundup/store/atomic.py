"""Writing so that a crash leaves the old or the new, never a part: a temporary neighbour, the disk, a rename."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import UserError

TEMPORARY = ".tmp-"
"""What the name of an unfinished file or folder starts with; such leftovers of a crash are never read."""

_REMEDIES = {
    errno.ENOSPC: ("The disk is full.", "Free some space, or choose a folder on another disk."),
    errno.EDQUOT: ("Your disk quota is used up.", "Free some space, or choose a folder on another disk."),
    errno.EROFS: ("That file system is read-only.", "Choose a folder on a disk that can be written."),
    errno.EACCES: (
        "You have no permission to write there.",
        "Choose a folder of your own, or change its permissions.",
    ),
    errno.EPERM: (
        "You have no permission to write there.",
        "Choose a folder of your own, or change its permissions.",
    ),
    errno.ENOTDIR: ("A part of that path is a file, not a folder.", "Choose another path."),
    errno.ENAMETOOLONG: ("That path is too long.", "Choose a shorter path."),
}


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turns the operating system's error on `path` into a `UserError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        why, fix = _REMEDIES.get(error.errno or 0, (str(error), "Choose another folder."))
        raise UserError(what, where=str(path), why=why, fix=fix) from error
    except UserError:
        raise
    except Exception as error:  # writers in C++ and Rust hide the error number
        if "No space left" not in str(error) and _free_bytes(path) > 1 << 20:
            raise
        why, fix = _REMEDIES[errno.ENOSPC]
        raise UserError(what, where=str(path), why=why, fix=fix) from error


def _free_bytes(path: Path) -> int:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(existing).free


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text so that a crash leaves the old file or the new one, never a part. Makes the folder."""
    with explained(path, "A file could not be written."):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


REPLACE_ATTEMPTS = 5
_RACES = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)


def publish_folder(target: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary folder, brings it to the disk, and renames it to `target`, replacing what is there.

    A crash, or an error of `write`, leaves `target` as it was.
    """
    with explained(target, "A folder could not be written."):
        temporary = temporary_beside(target)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            sync_tree(temporary)
            for attempt in range(REPLACE_ATTEMPTS):
                try:
                    remove(target)
                    os.replace(temporary, target)
                    break
                except OSError as error:  # another process removed or published the same folder in between
                    if error.errno not in _RACES or attempt == REPLACE_ATTEMPTS - 1:
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(target.parent)


def remove(path: Path) -> None:
    """Removes a file, a link (not what it points to) or a folder. A folder is renamed first: it is whole or gone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        doomed = temporary_beside(path)
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Removes what a crash left unfinished in `folder` or below; only for the one who holds the stage's lock."""
    for path in sorted(folder.rglob(TEMPORARY + "*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A fresh name in the same folder, hence on the same file system, as a rename needs."""
    return path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}")


def sync_folder(folder: Path) -> None:
    """Brings renames in `folder` to the disk, where the platform can (Windows cannot open a folder)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Brings a file's content to the disk."""
    with path.open("r+b" if os.name == "nt" else "rb") as file:  # Windows syncs only what it may write
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Brings every file and folder below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)
