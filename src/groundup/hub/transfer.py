"""Files from hubs: several at once; where that goes wrong for passing reasons, one at a time with patience."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread

from groundup import console
from groundup.hub import blobs, errors, retry
from groundup.hub.blobs import Place, Stopped
from groundup.hub.endpoints import Endpoint

PARALLEL_FILES = 8
POLL_SECONDS = 0.2
MEGABYTE = 1_000_000
Ended = tuple[Place, BaseException | None]


class _Gained:
    """Bytes that came, counted by several threads and shown by one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.bytes = 0

    def __call__(self, count: int) -> None:
        with self._lock:
            self.bytes += count


def fetch(name: str, places: Sequence[Place], hubs: Sequence[Endpoint]) -> None:
    """Bring all files of a repository, from the first of the hubs that gives them, with a bar.

    Raises UserError, or OSError where they cannot be written. What came so far stays, and is gone on from.
    """
    total = max(1, sum(place.file.size_bytes for place in places) // MEGABYTE)
    start = sum(place.part_bytes for place in places) // MEGABYTE
    gained = _Gained()
    with console.progress(f"Downloading {name}", total, unit="MB", start=start) as bar:

        def show() -> None:
            bar.advance(max(0, start + gained.bytes // MEGABYTE - bar.done))

        failed = _together(places, hubs[0], gained, show)
        left = list(hubs)
        for place, error in failed:
            _alone(place, error, left, gained, show)
        bar.advance(max(0, total - bar.done))


def _together(
    places: Sequence[Place], endpoint: Endpoint, gained: _Gained, show: Callable[[], None]
) -> list[tuple[Place, Exception | None]]:
    """Each file once, several at a time; after a passing failure no further ones begin.

    Returns what did not come, each with its failure, or None where it did not begin.
    """
    stop, slow = Event(), Event()
    waiting, ended = deque(places), SimpleQueue[Ended]()

    def work() -> None:
        while waiting:
            try:
                place = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                if slow.is_set():
                    raise Stopped
                blobs.bring(place, endpoint, stop, gained)
                ended.put((place, None))
            except BaseException as error:
                ended.put((place, error))

    for _ in range(min(PARALLEL_FILES, len(places))):
        # A daemon: who presses ctrl-C does not wait for a hub that is silent.
        Thread(target=work, daemon=True).start()
    failures: dict[Place, Exception | None] = {}
    try:
        for _ in places:
            place, error = _next(ended, show)
            if isinstance(error, Stopped):
                failures[place] = None
            elif isinstance(error, Exception) and _worth_another(error):
                failures[place] = error
                if len(places) > 1 and not slow.is_set():
                    why = retry.in_words(error)
                    console.warn(f"{place.file.name}: {why}; going on one file at a time")
                slow.set()
            elif error is not None:
                raise _explained(place, endpoint, error)
    except BaseException:
        stop.set()
        waiting.clear()
        raise
    return [(place, failures[place]) for place in places if place in failures]


def _next(ended: SimpleQueue[Ended], show: Callable[[], None]) -> Ended:
    """The next file that came or did not; meanwhile the bar moves."""
    while True:
        try:
            return ended.get(timeout=POLL_SECONDS)
        except Empty:
            show()


def _alone(
    place: Place, failure: Exception | None, hubs: list[Endpoint], gained: _Gained, show: Callable[[], None]
) -> None:
    """One file from the first hub that gives it; a hub that failed is taken off the list while there is another.

    failure: what went wrong with it before, which counts as the first attempt.
    """
    failures: dict[Endpoint, Exception] = {}

    def count(bytes_: int) -> None:
        gained(bytes_)
        show()

    while True:
        endpoint, tries, before = hubs[0], retry.Tries(retry.PATIENCE.attempts), [failure] if failure else []
        failure = None

        def attempt(
            endpoint: Endpoint = endpoint, tries: retry.Tries = tries, before: list[Exception] = before
        ) -> None:
            start_bytes = gained.bytes
            try:
                if before:
                    raise before.pop()
                blobs.bring(place, endpoint, Event(), count)
            except Exception as error:
                tries.note(gained.bytes - start_bytes >= min(MEGABYTE, place.file.size_bytes / 100))
                if isinstance(error, blobs.WrongBytes):  # all of it came for nothing
                    tries.fruitless += 1
                raise

        try:
            return retry.patiently(attempt, place.file.name, tries)
        except Exception as error:
            if not _worth_another(error):
                raise _explained(place, endpoint, error) from error
            failures[endpoint] = error
        if len(hubs) == 1:
            raise errors.broken_off(place.listing.name, place.file.name, failures)
        hubs.pop(0)
        console.warn(
            f"{endpoint.url}: {retry.in_words(failures[endpoint])}; {hubs[0].url} is asked in its place."
        )


def _worth_another(error: BaseException) -> bool:
    """Whether waiting, or another hub, may help: a mirror may not have the file yet."""
    return retry.is_passing(error) or "EntryNotFoundError" in {kind.__name__ for kind in type(error).__mro__}


def _explained(place: Place, endpoint: Endpoint, error: BaseException) -> BaseException:
    if retry.status_of(error) and isinstance(error, Exception):
        return errors.refused(place.listing.kind, place.listing.name, {endpoint: error})
    return error
