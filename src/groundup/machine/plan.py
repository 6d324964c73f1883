"""How this machine trains one stage: decided once by measuring, written down, and reused by a resumed run."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import UserError
from groundup.machine.estimate import (
    Workload,
    activation_bytes_per_token,
    checkpoint_bytes,
    row_tokens_that_fit,
    weight_bytes,
)
from groundup.machine.probe import Machine

MOST_ROW_TOKENS = {"cpu": 4096, "cuda": 32768}  # beyond this a matrix product is no faster


@dataclass(frozen=True)
class Plan:
    """Everything that the machine, and not the recipe, decides about a training stage."""

    device: str
    dtype: str
    dtype_reason: str
    gflops: dict[str, float]
    threads: int
    layout: str
    row_tokens: int
    memory_bytes: int
    checkpoint_bytes: int
    total_steps: int
    total_steps_reason: str


def choose_row_tokens(
    work: Workload, machine: Machine, device: str, longest_tokens: int, step_tokens: int
) -> int:
    """The micro-batch in tokens: as large as helps and fits, never smaller than the longest record.

    Raises UserError where even one record does not fit into memory.
    """
    available = machine.available_bytes if device == "cpu" else machine.gpus[0].available_bytes
    fits = row_tokens_that_fit(work, longest_tokens, available)
    if fits < longest_tokens:
        needs = weight_bytes(work) + longest_tokens * activation_bytes_per_token(work, longest_tokens)
        raise UserError(
            f"too little memory: about {needs / 1e9:.1f} GB are needed and {available / 1e9:.1f} GB are available",
            why=f"the longest record has {longest_tokens} tokens and {work.trained_parameters:,} weights are trained",
            fix="lower max_length, train an adapter (lora) instead of all weights, or close other programs",
        )
    largest = MOST_ROW_TOKENS["cpu" if device == "cpu" else "cuda"]
    return max(longest_tokens, min(fits, largest, step_tokens))


def planned_memory_bytes(work: Workload, row_tokens: int, longest_tokens: int) -> int:
    """Peak memory of training as planned."""
    return weight_bytes(work) + row_tokens * activation_bytes_per_token(work, longest_tokens)


def check_disk(free_bytes: int, work: Workload, checkpoints: int, where: str) -> None:
    """Raise UserError when the checkpoints and the result would not fit on the disk."""
    needed = checkpoint_bytes(work) * (checkpoints + 1) + work.parameters * work.compute_bytes
    if needed > free_bytes:
        raise UserError(
            f"too little disk: about {needed / 1e9:.1f} GB are needed and {free_bytes / 1e9:.1f} GB are free",
            where=where,
            why=f"{checkpoints} checkpoints and the trained model are kept",
            fix="free some space, choose another folder with --out, or lower save_total_limit",
        )
