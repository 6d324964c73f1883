"""Where downloads are kept: in Hugging Face's cache, else beside the run, and why."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from groundup.hub.errors import Kind

FOLDER = "groundup-cache"
_beside: ContextVar[Path | None] = ContextVar("cache_beside", default=None)


@contextmanager
def cache_beside(folder: Path) -> Iterator[None]:
    """Meanwhile `folder` takes downloads for which Hugging Face's cache is no place, and is looked into."""
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def caches(kind: Kind) -> list[Path]:
    """All folders to look into, the one to write to first.

    HF_DATASETS_CACHE (data sets alone) and HF_HUB_CACHE or HF_HOME are honoured; behind them come the run's own folder,
    then one below the working folder and one for temporary files.
    """
    from huggingface_hub import constants

    named = os.environ.get("HF_DATASETS_CACHE") if kind == "dataset" else None
    folders = [Path(named)] if named else []
    folders.append(Path(constants.HF_HUB_CACHE))
    if (beside := _beside.get()) is not None:
        folders.append(beside)
    folders.append(Path(FOLDER))
    temporary = Path(tempfile.gettempdir(), f"{FOLDER}-{_user()}")
    if _is_ours(temporary):
        folders.append(temporary)
    return list(dict.fromkeys(folder.expanduser().absolute() for folder in folders))


def repository(cache: Path, kind: Kind, name: str) -> Path:
    """The repository's folder in a cache, as `huggingface_hub` lays it out."""
    return cache / "--".join([f"{kind}s", *name.split("/")])


def trouble(cache: Path, needed_bytes: int) -> tuple[str, bool]:
    """Why nothing can be kept in this folder, "" where it can; and whether that is for want of space alone."""
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    if needed_bytes > (free_bytes := shutil.disk_usage(existing).free):
        return f"{size_text(free_bytes)} are free", True
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            file.write(bytes(4096))
    except OSError as error:
        return f"it cannot be written: {error.strerror or error}", False
    lock = cache / ".locks" / f"groundup-{os.getpid()}.lock"
    try:
        lock.parent.mkdir(exist_ok=True)
        with FileLock(lock, timeout=1):
            pass
        lock.unlink(missing_ok=True)
    except (OSError, NotImplementedError, Timeout) as error:
        return f"files in it cannot be locked: {getattr(error, 'strerror', None) or error}", False
    return "", False


def size_text(size_bytes: float) -> str:
    """As people say sizes of downloads."""
    if size_bytes < 1e6:
        return f"{max(size_bytes, 0) / 1e3:,.0f} kB"
    return f"{size_bytes / 1e6:,.0f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.1f} GB"


def _is_ours(folder: Path) -> bool:
    """Whether nobody else made it first, in a place where everybody may."""
    try:
        return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
    except OSError:
        return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(getattr(os, "getuid", int)())
