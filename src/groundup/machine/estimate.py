"""What a training run will need, before it needs it."""

from __future__ import annotations

from dataclasses import dataclass

ADAM_BYTES = 16  # float32 weight, gradient and two moments of a trained parameter
SHARE_OF_MEMORY = 0.6  # the rest belongs to the system, the data and what the estimate misses
HEAD_TILE_BYTES = 256 << 20  # scratch of the output head


@dataclass(frozen=True)
class Workload:
    """A model and how it is trained, in the numbers that memory depends on."""

    parameters: int
    trained_parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    compute_bytes: int
    """Bytes of a number in the compute dtype: 2 or 4."""


def weight_bytes(work: Workload) -> int:
    """Weights, gradients and moments: frozen weights in the compute dtype, trained ones as Adam keeps them."""
    frozen = work.parameters - work.trained_parameters
    return frozen * work.compute_bytes + work.trained_parameters * ADAM_BYTES


def activation_bytes_per_token(work: Workload, length_tokens: int) -> int:
    """What the backward keeps for a token of a sequence of `length_tokens`, without checkpointing.

    A layer keeps about 14 vectors of the hidden size, 5 of the MLP's size, and a row of attention weights a head.
    """
    numbers = 14 * work.hidden_size + 5 * work.intermediate_size + work.heads * length_tokens
    return work.layers * numbers * work.compute_bytes


def checkpoint_bytes(work: Workload) -> int:
    """Trained weights and two moments, float32."""
    return work.trained_parameters * 12


def row_tokens_that_fit(work: Workload, length_tokens: int, available_bytes: int) -> int:
    """Tokens of the largest row that the available memory holds; may be zero or less."""
    free = available_bytes * SHARE_OF_MEMORY - weight_bytes(work) - HEAD_TILE_BYTES
    return int(free // activation_bytes_per_token(work, length_tokens))
