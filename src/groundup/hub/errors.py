"""Why a name did not become files, and what to do: each reason has its own remedy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from groundup.errors import UserError
from groundup.hub.endpoints import Endpoint
from groundup.hub.retry import asked_wait, in_words, is_passing, status_of

Kind = Literal["model", "dataset"]
WORDS = {"model": "model", "dataset": "data set"}
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class NoAnswer(Exception):
    """No hub told what a repository holds. answers: what went wrong with each, in the order they were asked."""

    def __init__(self, answers: Mapping[Endpoint, Exception]) -> None:
        reasons = [f"{endpoint.url}: {in_words(error)}" for endpoint, error in answers.items()]
        super().__init__("; ".join(reasons))
        self.answers = dict(answers)

    @property
    def passing(self) -> bool:
        """Whether another attempt may go better."""
        return any(is_passing(error) for error in self.answers.values())


class NotAHub(Exception):
    """What answered was something else, for example a page that asks to log in to a network."""


def unavailable(kind: Kind, name: str, answers: Mapping[Endpoint, Exception], hint: str = "") -> UserError:
    """No hub gave the repository: it is nowhere, or is not shown to you, or no hub works now."""
    if len(answers) == 1 or not any(is_passing(error) for error in answers.values()):
        endpoint, error = next(iter(answers.items()))
        if is_passing(error) or isinstance(error, NotAHub):
            return _failing(kind, name, endpoint, error, hint)
        return refused(kind, name, answers, hint)
    listed = "\n".join(f"{endpoint.url}: {in_words(error)}" for endpoint, error in answers.items())
    return UserError(
        f"No hub can give the {WORDS[kind]} {name} now.",
        why=f"no file or folder here has that name, and of the hubs\n{listed}",
        fix=hint or "try again later, or set HF_ENDPOINT to a mirror; what is downloaded already is kept",
    )


def refused(kind: Kind, name: str, answers: Mapping[Endpoint, Exception], hint: str = "") -> UserError:
    """The hubs answered, and gave nothing."""
    for endpoint, error in answers.items():
        if "GatedRepoError" in _names(error):
            return gated(kind, name, endpoint, status_of(error))
    endpoint, error = next(iter(answers.items()))
    status = status_of(error)
    places = ", ".join(endpoint.url for endpoint in answers)
    if "RepositoryNotFoundError" in _names(error):
        fix = hint or "check the spelling, or the local path that was meant"
        if status == 401:
            fix += f"; if it is private, {LOG_IN}"
        return UserError(
            f"There is no {WORDS[kind]} {name}, neither here nor on {_hubs(answers)} {places}.",
            why=f"no file or folder has that name, and the hub answered {status}"
            f" ({'not found' if status == 404 else 'not found, or private'})",
            fix=fix,
        )
    if status in (401, 403):
        return UserError(
            f"The hub at {endpoint.url} refuses access to {name}.",
            why=f"it answered {status}: your token is not valid, or has no right to this {WORDS[kind]}",
            fix=LOG_IN,
        )
    return UserError(
        f"The hub at {endpoint.url} cannot give {name}.",
        why=in_words(error),
        fix=hint or "check the name; what is downloaded already is kept",
    )


def gated(kind: Kind, name: str, endpoint: Endpoint, status: int) -> UserError:
    """Its owners let in those who asked: without a token log in, with one ask."""
    page = f"{endpoint.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    what = f"The {WORDS[kind]} {name} is gated: its owners ask you to agree to their terms first."
    if not endpoint.trusted:
        return UserError(
            what,
            why=f"your token is sent to the first hub that is set, and not to {endpoint.url}",
            fix=f"agree at {page}, {LOG_IN}, and fetch it from the hub that gave you the token",
        )
    if status == 403:
        return UserError(
            what,
            why="the hub knows your token, and its account may not read this one (yet)",
            fix=f"agree at {page}; some owners answer only after days. A fine-grained token also needs the right "
            "to read gated repositories",
        )
    return UserError(
        what, why=f"it answered {status}: no token came along", fix=f"agree at {page}, then {LOG_IN}"
    )


def _failing(kind: Kind, name: str, endpoint: Endpoint, error: Exception, hint: str) -> UserError:
    if status_of(error):
        wait = asked_wait(error)
        later = f"try again in {wait:.0f} s" if wait else "try again later"
        return UserError(
            f"The hub at {endpoint.url} cannot give {name} now.",
            why=in_words(error),
            fix=f"{later}; what is downloaded already is kept",
        )
    proxy = next((name for name in PROXIES if os.environ.get(name)), "")
    through = f" (through the proxy of {proxy})" if proxy else ""
    return UserError(
        f"The hub at {endpoint.url} cannot be reached{through}.",
        why=f"{name} is no file or folder here, and: {in_words(error)}",
        fix=hint or "check the connection and the proxy, set HF_ENDPOINT to a mirror, or name a local folder",
    )


def offline(kind: Kind, name: str, hint: str = "", missing: str = "") -> UserError:
    """HF_HUB_OFFLINE forbids to ask. missing: the file that an incomplete copy lacks, or what is wrong with it."""
    copy = f"the copy in the cache is not whole ({missing})" if missing else "no whole copy in the cache"
    return UserError(
        f"The {WORDS[kind]} {name} is not on this machine, and downloads are switched off.",
        why=f"there is no file or folder of that name and {copy}; HF_HUB_OFFLINE is set",
        fix=hint or "unset HF_HUB_OFFLINE and fetch it first (groundup fetch R), or name a local folder",
    )


def broken_off(name: str, file: str, failures: Mapping[Endpoint, Exception]) -> UserError:
    """A file did not come, however often it was tried."""
    listed = "\n".join(f"{endpoint.url}: {in_words(error)}" for endpoint, error in failures.items())
    return UserError(
        f"{file} of {name} could not be downloaded.",
        why=listed,
        fix="run the same command again later: it goes on where it stopped",
    )


def no_place(name: str, needed: str, troubles: Mapping[Path, str], room: bool) -> UserError:
    """No folder can take it. room: whether it fails for space alone."""
    listed = "\n".join(f"{folder}: {trouble}" for folder, trouble in troubles.items())
    if room:
        return UserError(
            f"There is too little disk space for {name}.",
            why=f"it takes {needed}\n{listed}",
            fix="free some space, or set HF_HOME to a folder on a larger disk",
        )
    return UserError(
        f"{name} cannot be stored in the cache.",
        why=listed,
        fix="fix the folder's rights, or set HF_HOME to a folder of your own",
    )


def not_stored(name: str, folder: Path, error: OSError) -> UserError:
    """Writing failed midway."""
    return UserError(
        f"{name} cannot be stored in the cache.",
        where=str(folder),
        why=error.strerror or str(error),
        fix="free some space or fix the folder's rights, or set HF_HOME to another folder",
    )


def not_a_name(name: str, error: Exception) -> UserError:
    return UserError(f"{name} is neither a path that exists nor a hub name.", why=str(error))


def _hubs(answers: Mapping[Endpoint, Exception]) -> str:
    return "the hub at" if len(answers) == 1 else "the hubs"


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
