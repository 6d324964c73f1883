"""Which hubs are asked, in which order, and which of them is shown the user's token."""

from __future__ import annotations

import os
from dataclasses import dataclass

from groundup.errors import UserError

OFFICIAL = "https://huggingface.co"
MIRRORS = (OFFICIAL, "https://hf-mirror.com")
"""Asked after the endpoint that is set, where GROUNDUP_MIRRORS names no others."""
WHOLE_LIST = "GROUNDUP_ENDPOINTS"
"""Where a list in HF_ENDPOINT is kept, since libraries understand a single address there."""


@dataclass(frozen=True)
class Endpoint:
    """A hub's address without a slash at its end. Only a trusted one is sent the token."""

    url: str
    trusted: bool
    mirror: bool = (
        False  # it has what the official hub has, so it is not asked for what that one does not know
    )

    @property
    def token(self) -> bool | None:
        """For `huggingface_hub`: None sends the user's token if there is one, False sends none."""
        return None if self.trusted else False


def endpoints() -> tuple[Endpoint, ...]:
    """The hubs to ask, in order: what HF_ENDPOINT says, else the official one; then those of GROUNDUP_MIRRORS.

    A token belongs to the hub that gave it, so it goes to the first that the user configured and to no other: without
    HF_ENDPOINT that is the official hub. Raises UserError for what is no address.
    """
    configured = _configured() or [OFFICIAL]
    named = os.environ.get("GROUNDUP_MIRRORS")
    others = list(MIRRORS) if named is None else _addresses(named, "GROUNDUP_MIRRORS")
    asked = [Endpoint(url, trusted=not number) for number, url in enumerate(configured)]
    return (*asked, *(Endpoint(url, False, url != OFFICIAL) for url in others if url not in configured))


def split_list_for_libraries() -> None:
    """Of a list in HF_ENDPOINT leave the first address there, with which `huggingface_hub` can be imported."""
    value = os.environ.get("HF_ENDPOINT", "")
    if "," in value:
        os.environ[WHOLE_LIST] = value
        os.environ["HF_ENDPOINT"] = value.partition(",")[0].strip().rstrip("/")


def _configured() -> list[str]:
    """What HF_ENDPOINT says, or the list that stood there."""
    first = _addresses(os.environ.get("HF_ENDPOINT", ""), "HF_ENDPOINT")
    whole = _addresses(os.environ.get(WHOLE_LIST, ""), "HF_ENDPOINT")
    return whole if whole[:1] == first else first


def _addresses(text: str, variable: str) -> list[str]:
    found = []
    for part in text.split(","):
        url = part.strip().rstrip("/")
        if not url or url == "none":
            continue
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"{variable} is not the address of a hub.",
                why=f"{url} does not begin with https://",
                fix=f"write it whole: {variable}=https://{url}",
            )
        if url not in found:
            found.append(url)
    return found
