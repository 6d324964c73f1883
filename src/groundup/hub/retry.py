"""How long a hub is waited for, which failures are tried again, and what people are told meanwhile."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from groundup import console

if TYPE_CHECKING:
    from tenacity import RetryCallState

Result = TypeVar("Result")
BUSY = (408, 425, 429)
"""Answers, beside 500 and above, that may be others in a moment."""
_LIMIT = re.compile(r"\br=0\b.*?\bt=(\d+)")
"""The hub's `ratelimit` header once nothing remains: seconds until there is more."""


@dataclass(frozen=True)
class Patience:
    """Every wait has an end, and tests can make it short."""

    answer_seconds: float = 8.0  # for the first answer
    silence_seconds: float = 10.0  # between two pieces of a file
    lock_seconds: float = 60.0  # for another process that fetches the same file and makes no progress
    questions: int = 3  # for what a repository holds
    attempts: int = 5  # for a file, one after another that bring next to nothing
    first_wait_seconds: float = 1.0  # doubled each time
    longest_wait_seconds: float = 60.0  # a hub that asks for more is given up


PATIENCE = Patience()


class Unfinished(OSError):
    """A file came to an end before its time, or with other bytes than it should have."""


class Tries:
    """How many attempts in a row brought next to nothing. A line may break as often as it likes if it brings some."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.fruitless = 0

    def note(self, gained: bool) -> None:
        self.fruitless = 1 if gained else self.fruitless + 1


def patiently(attempt: Callable[[], Result], what: str, tries: Tries) -> Result:
    """Call `attempt` until it succeeds; after a passing failure wait, longer each time, and as long as the hub says.

    `attempt` notes in `tries` how a failure went. Raises the last failure.
    """
    import tenacity

    def too_often(state: RetryCallState) -> bool:
        return (
            tries.fruitless >= tries.most or (asked_wait(_error(state)) or 0) > PATIENCE.longest_wait_seconds
        )

    def wait(state: RetryCallState) -> float:
        asked = asked_wait(_error(state))
        doubled = PATIENCE.first_wait_seconds * 2 ** max(0, tries.fruitless - 1)
        return asked if asked is not None else min(doubled, PATIENCE.longest_wait_seconds)

    def tell(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0.0
        said = f"trying again in {seconds:.2g} s ({tries.fruitless + 1} of {tries.most})"
        console.warn(f"{what}: {in_words(_error(state))}; {said}")

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_passing),
        stop=too_often,
        wait=wait,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(attempt)


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    return error or RuntimeError("no failure")


def is_passing(error: BaseException) -> bool:
    """Whether the same question may be answered in a moment."""
    if isinstance(passing := getattr(error, "passing", None), bool):  # several hubs were asked
        return passing
    status = status_of(error)
    if status:
        return status in BUSY or status >= 500
    if isinstance(error, (Unfinished, ConnectionError, TimeoutError)):
        return True
    names = _names(error)
    return "TransportError" in names and "UnsupportedProtocol" not in names


def status_of(error: BaseException) -> int:
    """The HTTP status that the hub answered with; 0 where there was no answer."""
    response: Any = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def asked_wait(error: BaseException) -> float | None:
    """Seconds that the hub asks to wait: Retry-After, a number or a date, or its own `ratelimit` header."""
    if answers := getattr(error, "answers", None):
        return min(
            (wait for inner in answers.values() if (wait := asked_wait(inner)) is not None), default=None
        )
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    value = str(headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None
    limit = _LIMIT.search(str(headers.get("ratelimit") or "")) if status_of(error) == 429 else None
    return float(limit[1]) if limit else None


def in_words(error: BaseException) -> str:
    """Why there was no answer, in a few words."""
    if status := status_of(error):
        return f"it answered {status}" + {429: ", too many requests", 404: ", not found"}.get(status, "")
    names = _names(error)
    if "ConnectTimeout" in names:
        return "no connection within the time"
    if "TimeoutException" in names:
        return "silence for too long"
    if "RemoteProtocolError" in names:
        return "the connection was cut"
    message = re.sub(r"^\[Errno -?\d+\] ", "", (str(error).splitlines() or [""])[0])
    if "ProxyError" in names:
        return f"the proxy refuses: {message}"
    return message or type(error).__name__


def _names(error: BaseException) -> set[str]:
    """The error's classes by name: the HTTP library below `huggingface_hub` changed its module's name before."""
    return {kind.__name__ for kind in type(error).__mro__}
