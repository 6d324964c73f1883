"""Bringing a repository from a model hub into the local cache, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup import console
from groundup.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

ANSWER_SECONDS = 8.0  # how long the hub may take for its first answer before it counts as unreachable
POLL_SECONDS = 0.5
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Wanted:
    """A repository and which of its files to bring (patterns as in `fnmatch`)."""

    name: str
    kind: Literal["model", "dataset"]
    allow: list[str]
    ignore: list[str] = field(default_factory=list)
    without_safetensors: list[str] = field(default_factory=list)  # allowed too where there is no .safetensors
    hint: str = ""  # what else the name may have meant

    def patterns(self, files: list[str]) -> list[str]:
        safe = any(file.endswith(".safetensors") for file in files)
        return self.allow if safe else self.allow + self.without_safetensors

    def chosen(self, files: list[str]) -> list[str]:
        def matches(file: str, patterns: list[str]) -> bool:
            return any(fnmatch(file, pattern) for pattern in patterns)

        patterns = self.patterns(files)
        return [file for file in files if matches(file, patterns) and not matches(file, self.ignore)]


def download(wanted: Wanted) -> Path:
    """The folder of the repository's wanted files in the cache, downloaded or completed where needed.

    A whole copy in the cache is used where the hub cannot be reached or refuses. Honours HF_ENDPOINT, HF_TOKEN,
    HF_HOME and HF_HUB_OFFLINE. Raises UserError.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # plain HTTPS resumes and passes mirrors
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # _progress takes their place
    from huggingface_hub import errors, is_offline_mode  # reads both at its import

    if is_offline_mode():
        return _cached(wanted, _offline(wanted), quiet=True)
    try:
        return _fetch(wanted)
    except errors.HFValidationError as error:
        raise UserError(
            f"{wanted.name} is neither a path that exists nor a hub name.", why=str(error)
        ) from error
    except errors.HfHubHTTPError as error:
        return _cached(wanted, _refused(wanted, error))
    except Exception as error:
        if _is_connection_error(error):
            return _cached(wanted, _unreachable(wanted, error))
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
        ):
            raise _not_writable(wanted, error) from error
        raise


def _fetch(wanted: Wanted) -> Path:
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    api = HfApi(endpoint=_endpoint())
    ask = api.model_info if wanted.kind == "model" else api.dataset_info
    info = ask(wanted.name, timeout=ANSWER_SECONDS, files_metadata=True)
    size_bytes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    missing = [
        file
        for file in wanted.chosen(list(size_bytes))
        if not isinstance(
            try_to_load_from_cache(wanted.name, file, revision=info.sha, repo_type=wanted.kind), str
        )
    ]
    missing_bytes = sum(size_bytes[file] for file in missing)
    _check_space(wanted, missing_bytes)
    with _progress(wanted, missing_bytes) if missing else nullcontext():
        return Path(
            snapshot_download(
                wanted.name,
                repo_type=wanted.kind,
                endpoint=_endpoint(),
                allow_patterns=wanted.patterns(list(size_bytes)),
                ignore_patterns=wanted.ignore,
            )
        )


@contextmanager
def _progress(wanted: Wanted, total_bytes: int) -> Iterator[None]:
    """A bar that follows the size of the repository's folder in the cache, parts of files included."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE, f"{wanted.kind}s--{wanted.name.replace('/', '--')}", "blobs")

    def stored_bytes() -> int:
        try:
            return sum(file.stat().st_size for file in blobs.iterdir())
        except OSError:  # not made yet, or a part became a whole file meanwhile
            return 0

    finished = threading.Event()
    before_bytes = stored_bytes()

    def follow(bar: console.Progress) -> None:
        while not finished.wait(POLL_SECONDS):
            bar.advance(max(0, (stored_bytes() - before_bytes) // MEGABYTE - bar.done))

    with console.progress(f"Downloading {wanted.name}", max(1, total_bytes // MEGABYTE), unit="MB") as bar:
        follower = threading.Thread(target=follow, args=[bar], daemon=True)
        follower.start()
        try:
            yield
        finally:
            finished.set()
            follower.join()
        bar.advance(max(0, (bar.total or 0) - bar.done))


def _cached(wanted: Wanted, reason: UserError, quiet: bool = False) -> Path:
    """The whole copy in the cache; where there is none, `reason` is raised."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            wanted.name,
            repo_type=wanted.kind,
            local_files_only=True,
            allow_patterns=wanted.allow,
            ignore_patterns=wanted.ignore,
        )
    except LocalEntryNotFoundError as error:
        raise reason from error
    if not quiet:
        console.warn(f"{reason.what} The copy of {wanted.name} in the cache is used.")
    return Path(folder)


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _check_space(wanted: Wanted, needed_bytes: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    folder = next(parent for parent in [cache, *cache.parents] if parent.exists())
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise UserError(
            f"There is too little disk space for {wanted.name}.",
            where=str(cache),
            why=f"it takes {_megabytes(needed_bytes)}, and {_megabytes(free_bytes)} are free",
            fix="free some space, or set HF_HOME to a folder on a larger disk",
        )


def _is_connection_error(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    # which HTTP client the hub library uses changed between its versions
    client = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests")
    return client or isinstance(
        error, (ConnectionError, TimeoutError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    )


def _refused(wanted: Wanted, error: HfHubHTTPError) -> UserError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = error.response.status_code
    page = f"{_endpoint()}/{'datasets/' if wanted.kind == 'dataset' else ''}{wanted.name}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return UserError(
            f"The {wanted.kind} {wanted.name} is gated: its owners ask you to agree to their terms first.",
            fix=f"agree at {page}, then {log_in}",
        )
    if isinstance(error, RepositoryNotFoundError):
        fix = wanted.hint or "check the spelling, or the local path that was meant"
        if status == 401:
            fix += f"; if it is private, {log_in}"
        return UserError(
            f"There is no {wanted.kind} {wanted.name}, neither here nor on the hub at {_endpoint()}.",
            why=f"no file or folder has that name, and the hub answered {status}"
            f" ({'not found' if status == 404 else 'not found, or private'})",
            fix=fix,
        )
    if status in (401, 403):
        return UserError(
            f"The hub at {_endpoint()} refuses access to {wanted.name}.",
            why=f"it answered {status}: your token is not valid, or has no right to this {wanted.kind}",
            fix=log_in,
        )
    return UserError(
        f"The hub at {_endpoint()} cannot give {wanted.name} now.",
        why=f"it answered {status}",
        fix="try again later; what is downloaded already is kept",
    )


def _offline(wanted: Wanted) -> UserError:
    return UserError(
        f"The {wanted.kind} {wanted.name} is not on this machine, and downloads are switched off.",
        why="there is no file or folder of that name and no whole copy in the cache; HF_HUB_OFFLINE is set",
        fix=wanted.hint or "unset HF_HUB_OFFLINE to download it, or name a local folder",
    )


def _unreachable(wanted: Wanted, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(
        f"The hub at {_endpoint()} cannot be reached.",
        why=f"{wanted.name} is no file or folder here, and: {reason}",
        fix=wanted.hint
        or "check the connection and the proxy, set HF_ENDPOINT to a mirror, or name a local folder",
    )


def _not_writable(wanted: Wanted, error: OSError) -> UserError:
    from huggingface_hub import constants

    return UserError(
        f"{wanted.name} cannot be stored in the cache.",
        where=str(constants.HF_HUB_CACHE),
        why=error.strerror or str(error),
        fix="free some space or fix the folder's rights, or set HF_HOME to another folder",
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.1f} GB"
