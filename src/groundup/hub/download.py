"""Bringing what is wanted of a repository into the cache, all of it, or saying why not."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from groundup import console
from groundup.errors import UserError
from groundup.hub import blobs, errors, retry
from groundup.hub.blobs import Place
from groundup.hub.cache import caches, repository, size_text, trouble
from groundup.hub.endpoints import endpoints, split_list_for_libraries
from groundup.hub.errors import Kind, NoAnswer
from groundup.hub.listing import Listing, RemoteFile, ask, recall, remember, warn_once
from groundup.hub.transfer import fetch


@dataclass(frozen=True)
class Wanted:
    """A repository and which of its files to bring: patterns as in `fnmatch`, or exact names in `only`."""

    name: str
    kind: Kind
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    without_safetensors: tuple[str, ...] = ()  # allowed too where there is no .safetensors
    only: tuple[str, ...] = ()
    hint: str = ""  # what else the name may have meant

    def chosen(self, files: list[str]) -> list[str]:
        def matches(file: str, patterns: tuple[str, ...]) -> bool:
            return any(fnmatch(file, pattern) for pattern in patterns)

        if self.only:
            return [file for file in files if file in self.only]
        safe = any(file.endswith(".safetensors") for file in files)
        allow = self.allow if safe else self.allow + self.without_safetensors
        return [file for file in files if matches(file, allow) and not matches(file, self.ignore)]


@dataclass(frozen=True)
class Plan:
    """What a download would do: the files, those that are not in the cache as they should be, and why they are not."""

    wanted: Wanted
    listing: Listing
    cache: Path
    files: tuple[RemoteFile, ...]
    flaws: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return repository(self.cache, self.wanted.kind, self.wanted.name)

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / self.listing.commit

    @property
    def missing(self) -> list[Place]:
        return [self.place(file) for file in self.files if file.name in self.flaws]

    @property
    def missing_bytes(self) -> int:
        """To be downloaded still; what an interrupted download left is taken off."""
        return sum(place.file.size_bytes - place.part_bytes for place in self.missing)

    def place(self, file: RemoteFile) -> Place:
        return Place(self.folder, self.listing, file)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask a hub."""
    _prepare()
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def download(wanted: Wanted) -> Path:
    """The folder of the repository's wanted files in the cache, downloaded, completed or mended where needed.

    A whole copy in the cache is used where no hub can be reached, or they refuse. Raises UserError.
    """
    return bring(plan_download(wanted))


def plan_download(wanted: Wanted) -> Plan:
    """Look up what there is and what is here already. Raises UserError where it can be had from nowhere."""
    copy = _copy(wanted)
    if is_offline():
        if copy is None or copy.flaws:
            missing = (
                "".join(f"{file}: {flaw}" for file, flaw in list(copy.flaws.items())[:1]) if copy else ""
            )
            raise errors.offline(wanted.kind, wanted.name, wanted.hint, missing)
        return copy
    whole = copy is not None and not copy.flaws
    endpoints()  # what is no address is an error, also where a copy would do
    try:
        listing = ask(wanted.kind, wanted.name, attempts=1 if whole else None)
        files = _files(wanted, listing)
        if listing.gated and not whole:
            _check_gate(wanted, listing, files)
        return _choose_cache(wanted, listing, files)
    except NoAnswer as failure:
        problem = errors.unavailable(wanted.kind, wanted.name, failure.answers, wanted.hint)
    except UserError as error:
        problem = error
    if copy is None or copy.flaws:
        raise problem
    warn_once(f"{problem.what} The copy of {wanted.name} in the cache is used.")
    return copy


def bring(plan: Plan) -> Path:
    """Do what the plan says, or what is left of it by now. Raises UserError."""
    plan = _plan_in(plan.cache, plan.wanted, plan.listing, plan.files)
    if plan.missing:
        for name, flaw in plan.flaws.items():
            if flaw != blobs.MISSING:
                console.warn(f"{name} of {plan.wanted.name} is damaged in the cache ({flaw}): fetched again")
        try:
            fetch(plan.wanted.name, plan.missing, plan.listing.endpoints)
        except OSError as error:
            if error.errno is None:
                raise
            raise errors.not_stored(plan.wanted.name, plan.cache, error) from error
    if plan.listing.endpoints:  # a hub said so just now
        try:
            remember(plan.listing, plan.folder)
        except UserError:  # a cache that others fill
            pass
    return plan.snapshot


def _prepare() -> None:
    """What `huggingface_hub` reads when it is imported."""
    split_list_for_libraries()
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # plain HTTPS resumes and passes mirrors
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours takes their place


def _files(wanted: Wanted, listing: Listing) -> tuple[RemoteFile, ...]:
    chosen = set(wanted.chosen([file.name for file in listing.files]))
    return tuple(file for file in listing.files if file.name in chosen)


def _plan_in(cache: Path, wanted: Wanted, listing: Listing, files: tuple[RemoteFile, ...]) -> Plan:
    folder = repository(cache, wanted.kind, wanted.name)
    flaws = {file.name: flaw for file in files if (flaw := blobs.flaw(Place(folder, listing, file)))}
    return Plan(wanted, listing, cache, files, flaws)


def _copy(wanted: Wanted) -> Plan | None:
    """A whole copy in any cache, of the last commit that there is one of; else what there is of the very last."""
    best = None
    for cache in caches(wanted.kind):
        for listing in recall(wanted.kind, wanted.name, repository(cache, wanted.kind, wanted.name)):
            plan = _plan_in(cache, wanted, listing, _files(wanted, listing))
            if not plan.flaws and (plan.files or listing.complete):
                return plan
            best = best or (plan if plan.flaws else None)
    return best


def _choose_cache(wanted: Wanted, listing: Listing, files: tuple[RemoteFile, ...]) -> Plan:
    """In the first cache that has all; else in the first that has room, and can be written and locked."""
    plans = [_plan_in(cache, wanted, listing, files) for cache in caches(wanted.kind)]
    if whole := next((plan for plan in plans if not plan.flaws), None):
        return whole
    troubles: dict[Path, str] = {}
    room = True
    for plan in plans:
        why, for_space = trouble(plan.cache, plan.missing_bytes)
        if not why:
            if troubles:
                first, reason = next(iter(troubles.items()))
                warn_once(
                    f"The cache {first} is no place for {wanted.name} ({reason}): it is kept in {plan.cache}."
                )
            return plan
        troubles[plan.cache] = why
        room = room and for_space
    raise errors.no_place(wanted.name, size_text(plans[0].missing_bytes), troubles, room)


def _check_gate(wanted: Wanted, listing: Listing, files: tuple[RemoteFile, ...]) -> None:
    """Ask for one file's size, which a hub refuses to those whom the owners have not let in."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    endpoint = listing.endpoints[0]
    for file in files[:1]:
        url = hf_hub_url(wanted.name, file.name, repo_type=wanted.kind, endpoint=endpoint.url)
        try:
            get_hf_file_metadata(url, token=endpoint.token, timeout=retry.PATIENCE.answer_seconds)
        except GatedRepoError as error:
            raise errors.gated(wanted.kind, wanted.name, endpoint, retry.status_of(error)) from error
        except HfHubHTTPError as error:
            if retry.status_of(error) in (401, 403):
                raise errors.refused(wanted.kind, wanted.name, {endpoint: error}, wanted.hint) from error
        except Exception as error:
            if not retry.is_passing(error):
                raise
