"""What objectives over a policy's own answers share: a phase of answers, and numbers moved between its shapes.

P prompts with G answers each. An answer stands at the same place in reward_PG, flattened, and in the column `place`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from groundup.batch.types import Batch
from groundup.objective.base import Metrics, Objective


@dataclass(frozen=True)
class Answered:
    """A phase's answers in rows, with what they got and the columns that the model filled."""

    rows: Sequence[Batch]
    steps: Sequence[Sequence[int]]
    """The rows that make up each step, by index. Every row is in one."""
    reward_PG: Tensor
    carry: Mapping[str, float]
    """What the phase before left to know."""

    def step_sums(self, number: Sequence[float]) -> list[float]:
        """A number a row in, and for each row the sum over the rows of its step out."""
        summed = [0.0] * len(self.rows)
        for step in self.steps:
            together = sum(number[index] for index in step)
            for index in step:
                summed[index] = together
        return summed

    @property
    def step_sequences(self) -> list[float]:
        """For each row the answers of its step."""
        return self.step_sums([float(len(row.reads_Q)) for row in self.rows])


@dataclass(frozen=True)
class Prepared:
    """A phase's rows with advantages and weights, what was measured on the way, and what the next phase must know."""

    rows: list[Batch]
    metrics: Metrics
    carry: Mapping[str, float]


class PolicyObjective(Objective, Protocol):
    """An objective whose rows are prepared a phase at a time."""

    def prepare(self, phase: Answered) -> Prepared:
        """The phase's rows with what the loss wants beside log-probabilities, and their share of the step."""
        ...


def each_token(number_Q: Tensor, row: Batch) -> Tensor:
    """A number a sequence as one a read, [N]."""
    return number_Q.repeat_interleave(row.reads_Q)


def each_sequence(number_N: Tensor, row: Batch) -> Tensor:
    """A row's reads summed over each sequence, [Q]."""
    return torch.segment_reduce(number_N, "sum", lengths=row.reads_Q, unsafe=True)


def first_of(number_N: Tensor, row: Batch) -> Tensor:
    """Each sequence's first number, [Q]."""
    return number_N[row.reads_Q.cumsum(0) - row.reads_Q]


def by_place(rows: Sequence[Batch], number_Q: Sequence[Tensor], like_PG: Tensor) -> Tensor:
    """Numbers of sequences, row by row, at their places among the phase's answers, [P, G]."""
    found = torch.zeros_like(like_PG).flatten()
    for row, each_Q in zip(rows, number_Q, strict=True):
        found[row.sequence["place"].long()] = each_Q
    return found.view_as(like_PG)
