"""Held-out parts chosen by content, so that neither the order nor other rows decide where a row goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import xxhash

Item = TypeVar("Item")


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
