"""What the loop knows of an objective: which statistics it needs, and how it turns them into a loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from groundup.batch.types import Batch, Stats

Metrics = dict[str, tuple[float, float]]
"""Numerator and denominator a name: rows, and ranks, add up before anybody divides."""


class Objective(Protocol):
    """A loss over one row, already weighted by the row's share of the step."""

    @property
    def needs(self) -> frozenset[str]: ...

    def logp_gradient(self, batch: Batch) -> Tensor | None:
        """d loss / d logp, float32 [N], where it is known before the model runs: a trained head then works once."""
        ...

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        """A scalar whose sum over the step's rows is the step's loss, and the row's metrics."""
        ...


def passes_of(objective: Objective) -> tuple[frozenset[str], ...]:
    """Which statistics the model is asked for together; an objective may have `passes`, apart from one another.

    So a policy and its value, on two adapters of one model, take turns: the activations of one are held at a time.
    """
    passes: tuple[frozenset[str], ...] = getattr(objective, "passes", (objective.needs,))
    return passes


def total(rows: Iterable[Metrics]) -> Metrics:
    """Metrics of several rows added up."""
    added: Metrics = {}
    for row in rows:
        for name, (numerator, denominator) in row.items():
            above, below = added.get(name, (0.0, 0.0))
            added[name] = (above + numerator, below + denominator)
    return added


def means(rows: Iterable[Metrics]) -> dict[str, float]:
    """Metrics of several rows as plain numbers. Without pairs the margin is the difference of both means, as in TRL."""
    found = {name: above / below for name, (above, below) in total(rows).items() if below}
    if {"rewards/chosen", "rewards/rejected"} <= found.keys():
        found.setdefault("rewards/margins", found["rewards/chosen"] - found["rewards/rejected"])
    return found
