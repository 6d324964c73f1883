"""What a training run will need, before it needs it."""

from __future__ import annotations

from dataclasses import dataclass

ADAM_BYTES = 16  # float32 weight, gradient and two moments of a trained parameter
SHARE_OF_MEMORY = 0.6  # the rest belongs to the system, the data and what the estimate misses
LEAST_SCRATCH_BYTES = 384 << 20  # blocks of the output head
SCRATCH_VECTORS = (
    64  # as wide as the MLP: what layers make and drop, and what the allocator keeps of it; measured
)
KEPT_PROBABILITIES = 1 << 25  # of one layer's attention on a CPU; more are computed again in the backward
FOREIGN_FACTOR = 2.5  # layers that are not ours keep float32 copies in norms, rotations and activations


@dataclass(frozen=True)
class Workload:
    """A model and how it is trained, in the numbers that memory depends on."""

    parameters: int
    trained_parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    """Query heads times their size."""
    key_size: int
    """Key-value heads times their size."""
    heads: int
    compute_bytes: int
    """Bytes of a number in the compute dtype: 2 or 4."""
    own_layers: bool = True
    """Whether the layers are this project's; others keep more."""
    copied_parameters: int = 0
    """Of further models that are not trained, in the compute dtype."""


def weight_bytes(work: Workload) -> int:
    """Weights, gradients and moments: frozen weights in the compute dtype, trained ones as Adam keeps them.

    Trained weights are cast where they are used, and the backward keeps what they were cast to.
    """
    frozen = work.parameters - work.trained_parameters
    cast = work.compute_bytes if work.compute_bytes < 4 else 0
    copied = work.copied_parameters * work.compute_bytes
    return copied + frozen * work.compute_bytes + work.trained_parameters * (ADAM_BYTES + cast)


def activation_bytes(work: Workload, row_tokens: int, chain_tokens: int, recompute: bool = False) -> int:
    """What the backward keeps of a row of `row_tokens` whose sequences have up to `chain_tokens`.

    A layer keeps its input, both normed inputs and what stands between attention and MLP; queries, keys and values
    as attention wants them, and its output; gate, up, their activation and product; and probabilities of half of
    the sequence a head, unless those are too many. With `recompute` only the layers' inputs stay, and one layer at a
    time is whole.
    """
    vectors = 4 * work.hidden_size + 2 * work.query_size + 2 * work.key_size + 4 * work.intermediate_size
    scores = row_tokens * (chain_tokens // 2 + 64)
    probabilities = scores * work.heads
    layer = row_tokens * vectors + (probabilities if probabilities <= KEPT_PROBABILITIES else 0)
    inputs = row_tokens * work.hidden_size
    numbers = work.layers * inputs + layer if recompute else work.layers * layer
    numbers += scores * work.query_size // work.key_size  # which keys a query sees, once for all layers
    return int(numbers * work.compute_bytes * (1.0 if work.own_layers else FOREIGN_FACTOR))


def checkpoint_bytes(work: Workload) -> int:
    """Trained weights and two moments, float32."""
    return work.trained_parameters * 12


def scratch_bytes(work: Workload, row_tokens: int) -> int:
    """What training takes for a while beside all that is kept."""
    passing = row_tokens * SCRATCH_VECTORS * work.intermediate_size * work.compute_bytes
    return max(LEAST_SCRATCH_BYTES, passing)


def planned_memory_bytes(work: Workload, row_tokens: int, chain_tokens: int, recompute: bool = False) -> int:
    """Peak memory of training as planned, without that of Python and its libraries."""
    kept = activation_bytes(work, row_tokens, chain_tokens, recompute)
    return weight_bytes(work) + kept + scratch_bytes(work, row_tokens)
