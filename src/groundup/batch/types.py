"""What every stage trains on: a row of tokens cut into segments, and the places where the head looks.

Shape letters, used in every room that touches tensors:

    T tokens of a row          S segments of a row       N reads: places the output head looks at
    Q sequences                G groups of sequences     B prompts decoded together
    D hidden size              H heads                   K key-value heads      V vocabulary

A segment may have a parent, and then it continues its parent's text; depth is at most one. There is no padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One row, which is one micro-batch. Integer tensors are int64, weights float32."""

    token_T: Tensor
    position_T: Tensor
    start_S: Tensor
    length_S: Tensor
    parent_S: Tensor
    """Index of the segment that this one continues; -1 for a root. A parent stands before its children."""
    source_N: Tensor
    """Index into T of the token whose hidden state predicts `target_N`."""
    target_N: Tensor
    """The predicted token's id; -1 where only a value is wanted."""
    reads_Q: Tensor
    """How many reads belong to each sequence; N is sorted by sequence."""
    sequences_G: Tensor
    """How many sequences belong to each group; chosen stands before rejected."""
    weight_N: Tensor
    weight_G: Tensor
    """Already divided by the step's global count, so that the engine never divides."""
    record_Q: Tensor
    """Which record each sequence came from."""
    sequence_tokens: int
    """Tokens of all sequences, a shared prompt counted once for each, as other trainers count them."""
    token: dict[str, Tensor] = field(default_factory=dict)
    sequence: dict[str, Tensor] = field(default_factory=dict)
    group: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same row on another device."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, dict):
                moved[item.name] = {name: tensor.to(device) for name, tensor in value.items()}
            elif isinstance(value, Tensor):
                moved[item.name] = value.to(device)
        return replace(self, **moved)

    def with_columns(
        self, *, token: Mapping[str, Tensor] | None = None, sequence: Mapping[str, Tensor] | None = None
    ) -> Batch:
        """The same row with further columns [N] and [Q], or others in place of those of the same names."""
        return replace(
            self, token={**self.token, **(token or {})}, sequence={**self.sequence, **(sequence or {})}
        )


@dataclass(frozen=True)
class Stats:
    """What the model says about each read, float32 [N]; None where nobody asked."""

    logp_N: Tensor | None = None
    lse_N: Tensor | None = None
    entropy_N: Tensor | None = None
    value_N: Tensor | None = None
