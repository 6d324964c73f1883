"""What a repository holds: asked of the hubs once a process, and remembered in the cache for when none is asked."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from groundup import console
from groundup.errors import UserError
from groundup.hub import retry
from groundup.hub.endpoints import Endpoint, endpoints
from groundup.hub.errors import Kind, NoAnswer, NotAHub, not_a_name
from groundup.hub.retry import Tries, in_words, is_passing, patiently
from groundup.store.files import read_json, write_json, write_text

NOTES = ".groundup"
"""What we know of a repository, in its folder of the cache."""
_SAFE_COMMIT = re.compile(r"\w[\w.-]*")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_answers: dict[tuple[Kind, str, tuple[Endpoint, ...]], Listing] = {}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. checksum: sha256 (64 digits) or Git's sha1 of a blob (40); empty where it is not told."""

    name: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class Listing:
    """A repository's files at one commit. endpoints: whom to ask for them, the one that answered first."""

    kind: Kind
    name: str
    commit: str
    files: tuple[RemoteFile, ...]
    endpoints: tuple[Endpoint, ...] = ()
    gated: bool = False
    complete: bool = True  # false: only the files that are here are known


def ask(kind: Kind, name: str, attempts: int | None = None) -> Listing:
    """What the first hub that knows the repository says of it; the same for as long as the process lives.

    Raises NoAnswer, or UserError where `name` cannot be a name.
    """
    asked = (kind, name, endpoints())
    if asked not in _answers:  # all stages of a run see one commit, whatever is pushed meanwhile
        _answers[asked] = _asked(*asked, attempts or retry.PATIENCE.questions)
    return _answers[asked]


def forget() -> None:
    """Ask again next time."""
    _answers.clear()
    warn_once.cache_clear()


def _asked(kind: Kind, name: str, hubs: tuple[Endpoint, ...], attempts: int) -> Listing:
    from huggingface_hub.errors import HFValidationError

    tries = Tries(attempts)

    def once() -> Listing:
        try:
            return _round(kind, name, hubs)
        except NoAnswer:
            tries.note(gained=False)
            raise

    try:
        return patiently(once, f"Looking up {name}", tries)
    except HFValidationError as error:
        raise not_a_name(name, error) from error


def _round(kind: Kind, name: str, hubs: tuple[Endpoint, ...]) -> Listing:
    """Each hub once; mirrors only where one of the others gave no answer."""
    answers: dict[Endpoint, Exception] = {}
    for number, endpoint in enumerate(hubs):
        if endpoint.mirror and answers and not any(is_passing(error) for error in answers.values()):
            continue
        try:
            listing = _ask_one(kind, name, endpoint)
        except Exception as error:
            if not _is_answer(error):
                raise
            answers[endpoint] = error
            continue
        for other, why in answers.items():
            if is_passing(why):
                warn_once(f"{other.url}: {in_words(why)}; {endpoint.url} is asked in its place.")
        ready = (endpoint, *hubs[number + 1 :])
        return Listing(kind, name, listing.commit, listing.files, ready, listing.gated)
    raise NoAnswer(answers)


def _is_answer(error: Exception) -> bool:
    """Whether the hub's answer, or its silence, is what went wrong."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, (HfHubHTTPError, NotAHub)) or is_passing(error)


def _ask_one(kind: Kind, name: str, endpoint: Endpoint) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(endpoint=endpoint.url, token=endpoint.token)
    question = api.model_info if kind == "model" else api.dataset_info
    try:
        info = question(name, timeout=retry.PATIENCE.answer_seconds, files_metadata=True)
    except HFValidationError:
        raise
    except (ValueError, TypeError, KeyError) as error:  # no JSON, or other JSON than a hub's
        raise NotAHub("what answered is not a model hub; perhaps a page to log in to this network") from error
    commit = info.sha or ""
    if not _SAFE_COMMIT.fullmatch(commit):
        raise NotAHub("what answered names no commit")
    files = tuple(_file(sibling) for sibling in info.siblings or [])
    return Listing(kind, name, commit, files, gated=bool(getattr(info, "gated", False)))


def _file(sibling: Any) -> RemoteFile:
    """Names become paths and checksums names of files here, so neither may lead elsewhere."""
    name, checksum = sibling.rfilename, getattr(sibling.lfs, "sha256", None) or sibling.blob_id or ""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise NotAHub(f"it lists a file outside of the repository: {name}")
    known = sibling.size is not None and _CHECKSUM.fullmatch(checksum)
    return RemoteFile(name, sibling.size or 0, checksum if known else "")


@functools.cache
def warn_once(text: str) -> None:
    """A warning that is said once a process."""
    console.warn(text)


def remember(listing: Listing, folder: Path) -> None:
    """Write it into the repository's folder of a cache, so that the next process can do without a hub."""
    files = {file.name: [file.size_bytes, file.checksum] for file in listing.files}
    notes = folder / NOTES / f"{listing.commit}.json"
    if not notes.is_file():
        write_json(notes, {"files": files})
    reference = folder / "refs" / "main"
    if not reference.is_file() or reference.read_text(encoding="utf-8") != listing.commit:
        write_text(reference, listing.commit)


def recall(kind: Kind, name: str, folder: Path) -> Iterator[Listing]:
    """What is remembered in a repository's folder of a cache, the commit that was seen last first.

    Of what other programs fetched only the files that are there are known.
    """
    for commit in _commits(folder):
        notes, snapshot = folder / NOTES / f"{commit}.json", folder / "snapshots" / commit
        if files := _noted(notes):
            yield Listing(kind, name, commit, files)
        elif snapshot.is_dir():
            found = sorted(path for path in snapshot.rglob("*") if path.is_file())
            yield Listing(kind, name, commit, tuple(_local(path, snapshot) for path in found), complete=False)


def _commits(folder: Path) -> list[str]:
    try:
        last = [(folder / "refs" / "main").read_text(encoding="utf-8").strip()]
    except OSError:
        last = []
    notes = sorted((folder / NOTES).glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [commit for commit in dict.fromkeys([*last, *(path.stem for path in notes)]) if commit]


def _noted(notes: Path) -> tuple[RemoteFile, ...]:
    """Empty where there are no notes, or damaged ones: what lies in the cache is known without them."""
    try:
        entries = read_json(notes)["files"].items()
        return tuple(RemoteFile(file, int(size), str(checksum)) for file, (size, checksum) in entries)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return ()


def _local(path: Path, snapshot: Path) -> RemoteFile:
    """A blob of the cache bears its checksum as its name."""
    blob = path.resolve()
    checksum = blob.name if blob.parent.name == "blobs" and len(blob.name) in (40, 64) else ""
    return RemoteFile(path.relative_to(snapshot).as_posix(), blob.stat().st_size, checksum)
