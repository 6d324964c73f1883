"""What the loop knows of an objective: which statistics it needs, and how it turns them into a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from groundup.batch.types import Batch, Stats

Metrics = dict[str, tuple[float, float]]
"""Numerator and denominator a name: rows, and ranks, add up before anybody divides."""

_EXTREMES = {"_min": min, "/min": min, "_max": max, "/max": max}


class Objective(Protocol):
    """A loss over one row, already weighted by the row's share of the step.

    Those here inherit from it what is said below, where nothing else is true of them.
    """

    needs: ClassVar[frozenset[str]]
    """The statistics that the model is asked for."""

    shown: ClassVar[Mapping[str, str]] = {"loss": "loss"}
    """The few metrics that people see while it runs, and what they are called there."""

    token_share: ClassVar[tuple[float, ...]] = ()
    """What the tokens of a record's chains, chosen and rejected, count in `weight_N`; all of them 1 where empty."""

    @property
    def passes(self) -> tuple[frozenset[str], ...]:
        """Which of them the model is asked for together, each time with a forward and backward of its own.

        So a policy and its value, on two adapters of one model, take turns: the activations of one are held at a time.
        """
        return (self.needs,)

    def logp_gradient(self, batch: Batch) -> Tensor | None:
        """d loss / d logp, float32 [N], where it is known before the model runs: a trained head then works once.

        None where the loss bends with the log-probabilities, or asks for none.
        """
        return None

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        """A scalar whose sum over the step's rows is the step's loss, and the row's metrics."""
        ...


def counted(values: Tensor) -> tuple[float, float]:
    """Their sum, in float64, and how many they are."""
    return float(values.detach().double().sum()), float(values.numel())


def total(rows: Iterable[Metrics]) -> Metrics:
    """Metrics of several rows added up."""
    added: Metrics = {}
    for row in rows:
        for name, (numerator, denominator) in row.items():
            above, below = added.get(name, (0.0, 0.0))
            added[name] = (above + numerator, below + denominator)
    return added


def step_total(rows: Iterable[Metrics]) -> Metrics:
    """Metrics of one step's rows; a smallest or largest is that of the whole step, however it was packed."""
    rows = list(rows)
    added = total(rows)
    for name in added:
        if (extreme := _EXTREMES.get(name[-4:])) is not None:
            added[name] = (extreme(row[name][0] for row in rows if name in row), 1.0)
    return added


def means(rows: Iterable[Metrics]) -> dict[str, float]:
    """Metrics of several rows as plain numbers. Without pairs the margin is the difference of both means, as in TRL."""
    found = {name: above / below for name, (above, below) in total(rows).items() if below}
    if {"rewards/chosen", "rewards/rejected"} <= found.keys():
        found.setdefault("rewards/margins", found["rewards/chosen"] - found["rewards/rejected"])
    return found
