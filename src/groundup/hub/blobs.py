"""One file of a repository in the cache: continued where it stopped, proved against its checksum, put in its place."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from groundup import console
from groundup.errors import UserError
from groundup.hub import retry
from groundup.hub.endpoints import Endpoint
from groundup.hub.listing import NOTES, Listing, RemoteFile
from groundup.hub.retry import Unfinished

BLOCK_BYTES = 1 << 20
MISSING = "missing"
TELL_BYTES = 2_000_000_000  # a checksum of more takes seconds that people wonder about


class WrongBytes(Unfinished):
    """As many bytes as there should be, but others."""


class Stopped(Exception):
    """Another file failed, or the user had enough."""


@dataclass(frozen=True)
class Place:
    """Where a file of a listing lies in the repository's folder of a cache."""

    folder: Path
    listing: Listing
    file: RemoteFile

    @property
    def pointer(self) -> Path:
        return self.folder / "snapshots" / self.listing.commit / self.file.name

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / self.file.checksum

    @property
    def part(self) -> Path:
        """What was downloaded of it so far."""
        return self.folder / "blobs" / f"{self.file.checksum}.incomplete"

    @property
    def stamp(self) -> Path:
        return self.folder / NOTES / f"{self.file.checksum}.checked"

    @property
    def part_bytes(self) -> int:
        """Of the file that need not be downloaded any more."""
        try:
            if self.blob.is_file():
                return self.file.size_bytes
            return min(self.part.stat().st_size, self.file.size_bytes)
        except OSError:
            return 0


def flaw(place: Place) -> str:
    """What is wrong with the file, "" if nothing is. A checksum is computed once; its stamp counts then."""
    try:
        status = place.pointer.stat()
        if place.file.checksum and status.st_size != place.file.size_bytes:
            return f"{status.st_size:,} bytes instead of {place.file.size_bytes:,}"
        if not place.file.checksum or _stamped(place):
            return ""
        if place.file.size_bytes > TELL_BYTES:
            console.say(f"Checking {place.file.name} of {place.listing.name} in the cache.")
        if not _matches(place.pointer, place.file.checksum, _mark(place.pointer)):
            return "its content is not what its checksum says"
    except FileNotFoundError:  # also where another process takes a damaged one away meanwhile
        return MISSING
    except OSError as error:
        return error.strerror or str(error)
    stamp(place)
    return ""


@functools.cache  # in a cache that others fill no stamp can be left
def _matches(path: Path, checksum: str, mark: str) -> bool:
    return checksum_of(path, checksum) == checksum


def _stamped(place: Place) -> bool:
    try:
        return place.stamp.read_text(encoding="ascii") == _mark(place.pointer)
    except OSError:
        return False


def stamp(place: Place) -> None:
    """Note that the content was looked at, as long as size and time of change stay."""
    try:
        place.stamp.parent.mkdir(exist_ok=True)
        place.stamp.write_text(_mark(place.pointer), encoding="ascii")
    except OSError:  # a cache that others fill: it is looked at again next time
        pass


def _mark(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def checksum_of(path: Path, like: str) -> str:
    """sha256 of the file, or, where `like` is as short, the sha1 that Git knows its content by."""
    if len(like) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def clear(place: Place) -> None:
    """Take a damaged file out of the cache."""
    for path in (place.pointer, place.blob, place.stamp):
        path.unlink(missing_ok=True)


def bring(place: Place, endpoint: Endpoint, stop: Event, gained: Callable[[int], None]) -> None:
    """Download the file, or what is missing of it, from one hub, once.

    gained: told of bytes as they come; negative, where some had to be thrown away. Raises what the hub's client raises,
    Unfinished, Stopped, or UserError where another process holds the file and gets no further.
    """
    if not place.file.checksum:
        _bring_unproved(place, endpoint)
        gained(place.file.size_bytes)
        return
    for folder in (place.blob.parent, place.pointer.parent):
        folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(place)
    try:
        if not (problem := flaw(place)):  # another process was faster
            return
        if problem != MISSING:
            clear(place)
        if place.blob.is_file() and checksum_of(place.blob, place.file.checksum) != place.file.checksum:
            place.blob.unlink()
        if not place.blob.is_file():
            _stream(place, endpoint, stop, gained)
            _prove(place, gained)
            os.replace(place.part, place.blob)
        _point(place)
        stamp(place)
    finally:
        lock.release()


def _lock(place: Place) -> FileLock:
    """The lock that `huggingface_hub` takes too. Another process may hold it for as long as it gets anywhere."""
    path = place.folder.parent / ".locks" / place.folder.name / f"{place.file.checksum}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    seen = -1
    while True:
        try:
            lock.acquire(timeout=0 if seen < 0 else retry.PATIENCE.lock_seconds)
            return lock
        except Timeout:
            there = _downloaded_bytes(place)
            if seen < 0:
                console.say(f"Another download of {place.file.name} is under way; waiting for it.")
            elif there <= seen:
                raise UserError(
                    f"{place.file.name} of {place.listing.name} is locked by another process.",
                    where=str(path),
                    why=f"it got no further for {retry.PATIENCE.lock_seconds:.0f} s",
                    fix="end that process, or set HF_HOME to another folder",
                ) from None
            seen = there


def _downloaded_bytes(place: Place) -> int:
    """Bytes of the file on the disk, whoever wrote them: other programs' parts have a name of their own."""
    try:
        return sum(part.stat().st_size for part in place.blob.parent.glob(f"{place.file.checksum}*"))
    except OSError:
        return 0


def _stream(place: Place, endpoint: Endpoint, stop: Event, gained: Callable[[int], None]) -> None:
    """Append to the part what it lacks."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    name, kind = place.listing.name, place.listing.kind
    url = hf_hub_url(
        name, place.file.name, repo_type=kind, revision=place.listing.commit, endpoint=endpoint.url
    )
    with place.part.open("ab") as out:
        have = out.tell()
        if have > place.file.size_bytes:
            out.truncate(0)
            have = 0
        if have == place.file.size_bytes:
            return
        headers = build_hf_headers(token=endpoint.token) | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        # A redirect to where large files lie is followed without the token, which is for the hub alone.
        with get_session().stream("GET", url, headers=headers, timeout=_timeout()) as response:
            hf_raise_for_status(response)
            if have and response.status_code != 206:  # it sends the whole file again
                out.truncate(0)
                gained(-have)
                have = 0
            for block in response.iter_bytes():
                if stop.is_set():
                    raise Stopped
                out.write(block)
                gained(len(block))
                have += len(block)
                if have > place.file.size_bytes:
                    break


def _timeout() -> float:
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT"):
        return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    return retry.PATIENCE.silence_seconds


def _prove(place: Place, gained: Callable[[int], None]) -> None:
    """Raises Unfinished where the part is not the file; a part with other bytes is thrown away."""
    have, wanted = place.part.stat().st_size, place.file.size_bytes
    if have < wanted:
        raise Unfinished(f"it ended after {have:,} of {wanted:,} bytes")
    if have > wanted or checksum_of(place.part, place.file.checksum) != place.file.checksum:
        place.part.unlink()
        gained(-have)
        raise WrongBytes("other bytes came than the checksum says")


def _point(place: Place) -> None:
    """Let the snapshot's name lead to the blob; where links are not to be had, the blob itself moves there."""
    from huggingface_hub import constants

    place.pointer.unlink(missing_ok=True)
    if not constants.HF_HUB_DISABLE_SYMLINKS:
        try:
            place.pointer.symlink_to(os.path.relpath(place.blob, place.pointer.parent))
            return
        except OSError:
            pass
    shutil.move(place.blob, place.pointer)


def _bring_unproved(place: Place, endpoint: Endpoint) -> None:
    """A hub that tells no checksums: `huggingface_hub` fetches the file in its own way."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        place.listing.name,
        place.file.name,
        repo_type=place.listing.kind,
        revision=place.listing.commit,
        cache_dir=place.folder.parent,
        endpoint=endpoint.url,
        token=endpoint.token,
        etag_timeout=retry.PATIENCE.answer_seconds,
    )
