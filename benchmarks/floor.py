"""The floor: the matrix products that a training step cannot do without, alone, on the very shapes of its rows.

A row of T tokens and N reads. Every weight lies at its own place in memory, as in training, so that caches behave
alike; inputs are used again and outputs overwritten. Counted, per layer and linear map W [O, I]:

    forward x W'                     always
    backward dy W                    always, but for the first layer's q, k, v of an adapter: nothing below them learns
    dy' x                            where W is trained
    x A', h B', dy B, k A, k' x, dy' h     where W has an adapter of rank r
    head: logits and p W             of N reads; with a trained head also dlogits' h
    reference pass of DPO            forward and logits once more

Not counted: attention's products (given as a second figure), norms, rotations, activations, softmax, casts, the
optimizer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import WARM_UP_STEPS, Job, progress
from torch import Tensor

from groundup.batch import Batch, pack_step
from groundup.model import ModelConfig

RANK = 16
REPEATS = 3
HEAD_ROWS = 512


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step's products, the best of a few: with and without the reference, and attention's own."""
    torch.set_num_threads(job.threads)
    config = ModelConfig.from_folder(job.model)
    dtype = getattr(torch, job.settings["dtype"])
    weights = Weights(config, dtype, job.lora)
    found: dict[str, list[float]] = {"train": [], "reference": [], "attention": [], "attention_reference": []}
    measures = {"train": weights.train, "attention": weights.attention}
    if job.kind == "dpo":
        measures |= {"reference": weights.reference, "attention_reference": weights.attention_forward}
    for step in job.steps[WARM_UP_STEPS:]:
        rows = pack_step(step, job.settings["row_tokens"], job.settings["layout"])
        with torch.no_grad():
            for name, products in measures.items():
                found[name].append(best_seconds(products, rows))
        progress(f"floor: step {found['train'][-1]:.2f} s, reference {sum(found['reference'][-1:]):.2f} s")
    return dict(found)


def best_seconds(products: Callable[[Batch], None], rows: Sequence[Batch]) -> float:
    """Of a few passes over the rows, the quickest."""
    best = math.inf
    for _ in range(REPEATS):
        began = time.perf_counter()
        for row in rows:
            products(row)
        best = min(best, time.perf_counter() - began)
    return best


class Weights:
    """All matrices of the model, and the products over a row."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, lora: bool) -> None:
        hidden, middle = config.hidden_size, config.intermediate_size
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        shapes = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
        shapes += [(middle, hidden), (middle, hidden), (hidden, middle)]
        self.config, self.dtype, self.lora = config, dtype, lora
        self.layers = [[self._made(*shape) for shape in shapes] for _ in range(config.num_hidden_layers)]
        self.factors = [
            [(self._made(RANK, i), self._made(o, RANK)) for o, i in shapes] if lora else []
            for _ in range(config.num_hidden_layers)
        ]
        self.head = self._made(config.vocab_size, hidden)
        self._scratch: dict[tuple[str, int], Tensor] = {}

    def _made(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns).mul_(0.02).to(self.dtype)

    def _buffer(self, name: str, rows: int, columns: int) -> Tensor:
        """Memory by name and width, used again for every layer."""
        held = self._scratch.get((name, columns))
        if held is None or held.shape[0] < rows:
            held = self._scratch[(name, columns)] = self._made(rows, columns)
        return held[:rows]

    def train(self, row: Batch) -> None:
        tokens = len(row.token_T)
        for index, layer in enumerate(self.layers):
            for place, weight_OI in enumerate(layer):
                factors = self.factors[index][place] if self.lora else None
                self._forward(tokens, weight_OI, factors)
                self._backward(
                    tokens, weight_OI, factors, inputs=not (self.lora and index == 0 and place < 3)
                )
        self._head(len(row.source_N), backward=True)

    def reference(self, row: Batch) -> None:
        """The frozen model's forward: the adapter says nothing yet."""
        for layer in self.layers:
            for weight_OI in layer:
                self._forward(len(row.token_T), weight_OI, None)
        self._head(len(row.source_N), backward=False)

    def _forward(self, tokens: int, weight_OI: Tensor, factors: tuple[Tensor, Tensor] | None) -> None:
        outputs, inputs = weight_OI.shape
        x_TI, y_TO = self._buffer("x", tokens, inputs), self._buffer("y", tokens, outputs)
        torch.mm(x_TI, weight_OI.T, out=y_TO)
        if factors is not None:
            a_rI, b_Or = factors
            inner_Tr = torch.mm(x_TI, a_rI.T, out=self._buffer("h", tokens, RANK))
            torch.mm(inner_Tr, b_Or.T, out=y_TO)

    def _backward(
        self, tokens: int, weight_OI: Tensor, factors: tuple[Tensor, Tensor] | None, inputs: bool
    ) -> None:
        out_size, in_size = weight_OI.shape
        x_TI, dx_TI = self._buffer("x", tokens, in_size), self._buffer("dx", tokens, in_size)
        dy_TO = self._buffer("dy", tokens, out_size)
        if inputs:
            torch.mm(dy_TO, weight_OI, out=dx_TI)
        if factors is None:
            torch.mm(dy_TO.T, x_TI, out=self._buffer("dw", out_size, in_size))
            return
        a_rI, b_Or = factors
        inner_Tr = self._buffer("h", tokens, RANK)
        grad_Tr = torch.mm(dy_TO, b_Or, out=self._buffer("k", tokens, RANK))
        if inputs:
            torch.mm(grad_Tr, a_rI, out=dx_TI)
        torch.mm(grad_Tr.T, x_TI)
        torch.mm(dy_TO.T, inner_Tr)

    def _head(self, reads: int, backward: bool) -> None:
        hidden_ND = self._buffer("x", reads, self.config.hidden_size)
        for start in range(0, reads, HEAD_ROWS):
            part_RD = hidden_ND[start : start + HEAD_ROWS]
            logits_RV = self._buffer("logits", HEAD_ROWS, self.config.vocab_size)[: len(part_RD)]
            torch.mm(part_RD, self.head.T, out=logits_RV)
            if backward:
                torch.mm(logits_RV, self.head, out=self._buffer("dx", len(part_RD), self.config.hidden_size))
                if not self.lora:
                    torch.mm(logits_RV.T, part_RD, out=self._buffer("dhead", *self.head.shape))

    def attention(self, row: Batch) -> None:
        self._attention(row, backward=True)

    def attention_forward(self, row: Batch) -> None:
        self._attention(row, backward=False)

    def _attention(self, row: Batch, backward: bool) -> None:
        """Scores and values a segment over its chain, whole rectangles: 2 products forward, 4 backward."""
        config = self.config
        group = config.num_attention_heads // config.num_key_value_heads
        for length, parent in zip(row.length_S.tolist(), row.parent_S.tolist(), strict=True):
            keys = length + (int(row.length_S[parent]) if parent >= 0 else 0)
            shape = (config.num_key_value_heads, group * length, config.head_dim)
            q, out = torch.ones(shape, dtype=self.dtype), torch.empty(shape, dtype=self.dtype)
            k = torch.ones(shape[0], keys, shape[2], dtype=self.dtype)
            p = torch.ones(shape[0], shape[1], keys, dtype=self.dtype)
            scores, dk = torch.empty_like(p), torch.empty_like(k)
            for _ in range(config.num_hidden_layers):
                for _ in range(2 if backward else 1):
                    torch.bmm(q, k.mT, out=scores)
                    torch.bmm(p, k, out=out)
                if backward:
                    torch.bmm(p.mT, q, out=dk)
                    torch.bmm(p.mT, q, out=dk)
