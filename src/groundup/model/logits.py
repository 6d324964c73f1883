"""Logits a block of reads at a time, for the head: made, looked at, and gone.

A block [B, V] is as large as BLOCK_BYTES allows, because matrix products want many rows and because the trained
weight's gradient, as large as the weight, goes through memory once a block. What happens to a block between its
products is done on tiles of a few rows that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 96 << 20
"""The most that logits take at once, in the compute dtype: 1,024 reads by 49,152 tokens in bfloat16."""

TILE_ELEMENTS = 1 << 19
"""Logits that a CPU thread turns into probabilities at once: a few MB with all that is made of them."""

STRIPE_ROWS = 2048
"""Rows of the weight's gradient that are widened and added while they are in the cache."""


class Rule(NamedTuple):
    """What stands between hidden W^T and the logits."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def apply(self, product: Tensor, bias_V: Tensor | None) -> Tensor:
        """softcap(scale (product + bias)) / temperature, softcap(x) = c tanh(x / c), in float32 or wider; not in place.

        tanh(x) is taken as 2 sigmoid(2x) - 1, which runs six times as fast on a CPU. It is off by 1e-7 at most,
        so a logit by softcap times that, which float32 rounds away from logits of that size anyway.
        """
        logits = product.to(accumulator(product.dtype))
        if bias_V is not None:
            logits = logits + bias_V
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.sigmoid(logits * (2 / self.softcap)) * (2 * self.softcap) - self.softcap
        return logits / self.temperature if self.temperature != 1.0 else logits

    def times_slope_(self, grad: Tensor, logits: Tensor) -> Tensor:
        """grad *= d logits / d (product + bias), in place, from the logits l: scale (1 - (t l / c)^2) / t."""
        if self.softcap is not None:
            grad.mul_(1 - logits.square().mul_((self.temperature / self.softcap) ** 2))
        factor = self.scale / self.temperature
        return grad.mul_(factor) if factor != 1.0 else grad


class Tile(NamedTuple):
    """Some reads of a block, free to be overwritten, `raw_RV` last: the logits may be the same memory."""

    span: slice
    """Which of the N reads."""
    raw_RV: Tensor
    """Its rows of the block, in the compute dtype."""
    logit_RV: Tensor
    p_RV: Tensor


class Blocks:
    """Walks over the logits of hidden [N, D] with a weight [V, D], both without gradients of their own."""

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, rule: Rule) -> None:
        self.hidden_ND = hidden_ND.detach()
        self.weight_VD = weight_VD.detach().to(hidden_ND.dtype)
        self.accumulator = accumulator(hidden_ND.dtype)
        self.bias_V = None if bias_V is None else bias_V.detach().to(self.accumulator)
        self.rule = rule
        self.rows = _block_rows(len(hidden_ND), len(weight_VD) * hidden_ND.element_size())
        threads = torch.get_num_threads() if hidden_ND.device.type == "cpu" else self.rows
        self._tile_rows = max(1, TILE_ELEMENTS * threads // len(weight_VD))

    def new_block(self) -> Tensor:
        return self.hidden_ND.new_empty(self.rows, len(self.weight_VD))

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Which reads, and hidden W^T of them [B, V], in memory that the next block uses again."""
        memory = self.new_block()
        for start in range(0, len(self.hidden_ND), self.rows):
            span = slice(start, min(start + self.rows, len(self.hidden_ND)))
            block_BV = memory[: span.stop - start]
            yield span, torch.mm(self.hidden_ND[span], self.weight_VD.T, out=block_BV)

    def tiles(self, span: slice, block_BV: Tensor) -> Iterator[Tile]:
        """Logits and probabilities of one block, in float32 or wider."""
        for start in range(0, len(block_BV), self._tile_rows):
            raw_RV = block_BV[start : start + self._tile_rows]
            logit_RV = self.rule.apply(raw_RV, self.bias_V)
            reads = slice(span.start + start, span.start + start + len(raw_RV))
            yield Tile(reads, raw_RV, logit_RV, torch.softmax(logit_RV, -1))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums are taken in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def add_product(total_VD: Tensor, block_BV: Tensor, hidden_BD: Tensor, first: bool) -> None:
    """total += block^T hidden, or total = that for the `first` block.

    A product in fewer bits than the total is widened stripe by stripe, in the cache.
    """
    if block_BV.dtype == total_VD.dtype:
        total_VD.addmm_(block_BV.T, hidden_BD, beta=0 if first else 1)
        return
    for start in range(0, len(total_VD), STRIPE_ROWS):
        stripe = slice(start, start + STRIPE_ROWS)
        product = block_BV[:, stripe].T @ hidden_BD
        if first:
            total_VD[stripe].copy_(product)
        else:
            total_VD[stripe].add_(product.to(total_VD.dtype))


def _block_rows(reads: int, row_bytes: int) -> int:
    """Blocks of equal size, so that no small one comes last; a multiple of 16, as products like them."""
    most = max(1, BLOCK_BYTES // row_bytes)
    blocks = max(1, -(-reads // most))
    even = -(-reads // blocks)
    return max(1, min(most, -(-even // 16) * 16, reads))
