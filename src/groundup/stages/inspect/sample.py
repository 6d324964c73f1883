"""A fair sample of rows that stream by."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """Up to `size` items, each as likely as any other, always the same ones (Vitter 1985, algorithm R)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._draw = random.Random(0)
        self._seen = 0
        self._chosen: list[tuple[int, Item]] = []

    def offer(self, item: Item) -> None:
        """One more item has come."""
        if len(self._chosen) < self.size:
            self._chosen.append((self._seen, item))
        elif (place := self._draw.randrange(self._seen + 1)) < self.size:
            self._chosen[place] = (self._seen, item)
        self._seen += 1

    @property
    def items(self) -> list[Item]:
        """The chosen ones, in the order in which they came."""
        return [item for _, item in sorted(self._chosen, key=lambda numbered: numbered[0])]
