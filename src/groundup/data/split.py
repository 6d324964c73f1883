"""Held-out parts chosen by content, so that neither the order nor other rows decide where a row goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import xxhash

Item = TypeVar("Item")

LARGEST_CONVERSATION = 16
"""So many rows that begin alike may be of one conversation or tree, in however little data."""


class Asked(Protocol):
    """A row with a prompt. opening: what the prompt's conversation begins with; rows of one key have one opening."""

    @property
    def key(self) -> str: ...
    @property
    def opening(self) -> str: ...


Row = TypeVar("Row", bound=Asked)


def split_rows(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Training rows and held-out rows; those that begin with the same question stand on one side.

    A conversation that is cut at several of its turns, as in HH-RLHF, and pairs of one of OpenAssistant's trees would
    else be asked in the hold-out what they were trained on. What many rows begin with is a greeting or a form and no
    question: of these, rows of one prompt stand on one side, so that no opening alone makes the hold-out half as large
    again as it should be.
    """
    openings = [row.opening for row in rows]
    count = Counter(openings)
    most = min(len(rows) / 2, max(LARGEST_CONVERSATION, fraction / 2 * len(rows)))
    pairs = [(row, row.key if count[opening] > most else opening) for row, opening in zip(rows, openings)]
    train, held_out = split_holdout(pairs, fraction, key=lambda pair: pair[1])
    return [row for row, _ in train], [row for row, _ in held_out]


def is_held_out(key: str, fraction: float) -> bool:
    """Whether the row with this content belongs to the held-out `fraction`. Equal content stays together."""
    return _place(key) < fraction


def split_holdout(
    items: Sequence[Item], fraction: float, key: Callable[[Item], str]
) -> tuple[list[Item], list[Item]]:
    """Training rows and held-out rows, each in the order given.

    With a fraction above 0, two different keys are enough for both sides to have a row.
    """
    if fraction <= 0 or len(items) < 2:
        return list(items), []
    places = [_place(key(item)) for item in items]
    # Below the lowest place nobody would be held out, at the highest everybody would.
    limit = min(max(fraction, math.nextafter(min(places), math.inf)), max(places))
    train = [item for item, place in zip(items, places) if place >= limit]
    held_out = [item for item, place in zip(items, places) if place < limit]
    return train, held_out


def _place(key: str) -> float:
    """A number from 0 up to 1, as good as random, that only depends on the content."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass")) / 2**64
