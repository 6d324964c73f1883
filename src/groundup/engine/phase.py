"""A phase: the rows that some optimizer steps train on. Offline they are one step's; online they were rolled out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.batch import Batch
from groundup.objective import Metrics
from groundup.store import Stage

PHASE = "phase.safetensors"
_COLUMNS = ("token", "sequence", "group")


@dataclass(frozen=True)
class Phase:
    """Rows, packed once, and which of them each optimizer step takes. A row may serve several steps."""

    first_step: int
    rows: tuple[Batch, ...]
    steps: tuple[tuple[int, ...], ...]
    """Rows of each step, by index."""
    metrics: Metrics = field(default_factory=dict)
    """What was measured while it was made; logged with its first step."""
    carry: Mapping[str, float] = field(default_factory=dict)
    """What the phase behind it must know, such as a coefficient that adapts itself."""

    @property
    def end_step(self) -> int:
        return self.first_step + len(self.steps)

    def rows_of(self, step: int) -> list[Batch]:
        """The rows of optimizer step number `step`, counted from the run's beginning."""
        return [self.rows[index] for index in self.steps[step - self.first_step]]


class Source(Protocol):
    """Where phases come from."""

    def phase(self, step: int, carry: Mapping[str, float]) -> Phase:
        """The phase that begins with this step: a function of the step, the seed and the weights as they are."""
        ...


@dataclass(frozen=True)
class Offline:
    """Rows that are known beforehand: every step is a phase of its own."""

    rows_of: Callable[[int], list[Batch]]

    def phase(self, step: int, carry: Mapping[str, float]) -> Phase:
        rows = tuple(self.rows_of(step))
        return Phase(step, rows, (tuple(range(len(rows))),))


@torch.no_grad()
def with_columns(
    rows: Sequence[Batch],
    model: Any,
    columns: Mapping[str, str],
    device: str,
    on_row: Callable[[Batch], object] = lambda row: None,
) -> list[Batch]:
    """The same rows with what the model says about each read, without gradient, as token columns.

    columns: the column's name, and the statistic of `Stats` ("logp", "value") that fills it.
    """
    filled = []
    for row in rows:
        stats = model(row.to(device), frozenset(columns.values()))
        found = {name: getattr(stats, f"{what}_N").cpu() for name, what in columns.items()}
        filled.append(row.with_columns(token=found))
        on_row(row)
    return filled


def save_phase(path: Path, phase: Phase) -> None:
    """All of the phase in one file: a run that goes on in its middle has the very same rows and columns."""
    tensors: dict[str, Tensor] = {}
    for index, row in enumerate(phase.rows):
        for item in fields(row):
            value = getattr(row, item.name)
            named = {item.name: value} if isinstance(value, Tensor) else {}
            if item.name in _COLUMNS:
                named = {f"{item.name}/{name}": column for name, column in value.items()}
            tensors |= {f"{index}/{name}": tensor.cpu().clone() for name, tensor in named.items()}
    about = {
        "first_step": phase.first_step,
        "steps": phase.steps,
        "metrics": phase.metrics,
        "carry": dict(phase.carry),
        "sequence_tokens": [row.sequence_tokens for row in phase.rows],
    }
    save_file(tensors, path, metadata={"phase": json.dumps(about)})


def load_phase(path: Path) -> Phase:
    """What `save_phase` wrote."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["phase"])
        rows: list[dict[str, Any]] = [
            {"sequence_tokens": tokens, **{name: {} for name in _COLUMNS}}
            for tokens in about["sequence_tokens"]
        ]
        for key in file.keys():  # noqa: SIM118  (it is no dictionary)
            index, _, name = key.partition("/")
            kind, slash, column = name.partition("/")
            if slash:
                rows[int(index)][kind][column] = file.get_tensor(key)
            else:
                rows[int(index)][name] = file.get_tensor(key)
    return Phase(
        about["first_step"],
        tuple(Batch(**row) for row in rows),
        tuple(tuple(step) for step in about["steps"]),
        {name: tuple(pair) for name, pair in about["metrics"].items()},
        about["carry"],
    )


def unfinished_phase(stage: Stage) -> Phase | None:
    """The phase in whose middle the last checkpoint was saved; None where it was saved between phases."""
    checkpoints = stage.checkpoints()
    path = checkpoints[-1] / PHASE if checkpoints else None
    return load_phase(path) if path is not None and path.exists() else None
