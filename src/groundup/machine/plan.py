"""How this machine trains one stage: decided once by measuring, written down, and reused by a resumed run."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import UserError
from groundup.machine.estimate import (
    SHARE_OF_MEMORY,
    Workload,
    checkpoint_bytes,
    planned_memory_bytes,
)
from groundup.machine.probe import Machine

MOST_ROW_TOKENS = {"cpu": 2048, "cuda": 32768}  # beyond this a matrix product is no faster
ROW_STEP_TOKENS = 32


@dataclass(frozen=True)
class Plan:
    """Everything that the machine, and not the recipe, decides about a training stage."""

    device: str
    dtype: str
    dtype_reason: str
    gflops: dict[str, float]
    threads: int
    layout: str
    layout_reason: str
    row_tokens: int
    recompute: bool
    memory_bytes: int
    checkpoint_bytes: int
    total_steps: int
    total_steps_reason: str
    reference: str = ""
    """Where a preference stage has its reference from; empty where nothing is compared."""


def choose_rows(
    work: Workload,
    machine: Machine,
    device: str,
    longest_tokens: int,
    chain_tokens: int,
    step_tokens: int,
    recompute: bool | None = None,
) -> tuple[int, bool]:
    """The micro-batch in tokens, and whether the backward computes activations again.

    Rows are as large as helps and fits, never smaller than the longest record, whose sequences have up to
    `chain_tokens`. Unless `recompute` says it, activations
    are computed again only where the longest record would not fit otherwise: it costs a quarter of the speed.

    Raises UserError where even one record does not fit into memory.
    """
    available = machine.available_bytes if device == "cpu" else machine.gpus[0].available_bytes
    largest = MOST_ROW_TOKENS["cpu" if device == "cpu" else "cuda"]
    for again in (False, True) if recompute is None else (recompute,):
        for row_tokens in (
            *range(min(largest, step_tokens), longest_tokens, -ROW_STEP_TOKENS),
            longest_tokens,
        ):
            if planned_memory_bytes(work, row_tokens, chain_tokens, again) <= available * SHARE_OF_MEMORY:
                return row_tokens, again
    needs = planned_memory_bytes(work, longest_tokens, chain_tokens, recompute is not False)
    raise UserError(
        f"too little memory: about {needs / 1e9:.1f} GB are needed and {available / 1e9:.1f} GB are available",
        why=f"the longest record has {longest_tokens} tokens and {work.trained_parameters:,} weights are trained",
        fix="lower max_length, train an adapter (lora) instead of all weights, or close other programs",
    )


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
