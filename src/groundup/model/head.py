"""The output head: what the model says about chosen next tokens, without ever holding [N, V] logits.

Reads go through in tiles of a few rows by the whole vocabulary. For one row, with logits l, log-sum-exp z and
p = exp(l - z):

    logp[y] = l[y] - z          d logp[y] / dl = onehot(y) - p
    lse     = z                 d lse     / dl = p
    entropy = z - sum(p l)      d entropy / dl = p (sum(p l) - l)

A frozen head therefore needs only p W and, for the entropy, (p l) W, two [N, D] matrices, to give its gradients.
A trained head keeps log-sum-exp and expected logit, and computes its tiles again in the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TILE_ELEMENTS = 1 << 22
"""Logits held at once. Small enough for the allocator to reuse memory instead of asking the system again."""


class Head(nn.Module):
    """`lm_head` of Hugging Face: the weight [V, D], tied to the embedding where both are the same parameter."""

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))

    def forward(self, hidden_ND: Tensor, target_N: Tensor, needs: frozenset[str]) -> dict[str, Tensor]:
        """Float32 [N] for each of `needs` out of "logp", "lse", "entropy" (nats).

        A target of -1 has no log-probability: it gets 0 and no gradient.
        """
        entropy = "entropy" in needs
        keep = torch.is_grad_enabled() and (hidden_ND.requires_grad or self.weight.requires_grad)
        if not keep:
            found = _one_pass(hidden_ND, self.weight, target_N, entropy, keep=False)
            columns: tuple[Tensor | None, ...] = (found.logp_N, found.lse_N, found.entropy_N)
        elif self.weight.requires_grad:
            columns = _TrainedHead.apply(hidden_ND, self.weight, target_N, entropy)
        else:
            columns = _FrozenHead.apply(hidden_ND, self.weight, target_N, entropy)
        named = zip(("logp", "lse", "entropy"), columns, strict=True)
        return {name: column for name, column in named if name in needs and column is not None}

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Float32 [N, V]; for a few rows, as generation needs."""
        return (hidden_ND @ self.weight.to(hidden_ND.dtype).T).float()


@dataclass
class _Pass:
    logp_N: Tensor
    lse_N: Tensor
    expected_N: Tensor | None
    """The expected logit, sum(p l)."""
    entropy_N: Tensor | None
    pW_ND: Tensor | None = None
    plW_ND: Tensor | None = None


class _Tiles:
    """Logits of a few reads at a time, in memory that every tile uses again."""

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor) -> None:
        self.hidden_ND = hidden_ND
        self.weight_VD = weight_VD.detach().to(hidden_ND.dtype)
        vocab = weight_VD.shape[0]
        self.rows = max(1, min(hidden_ND.shape[0], TILE_ELEMENTS // vocab))
        self.accumulate = torch.promote_types(hidden_ND.dtype, torch.float32)
        self._raw = hidden_ND.new_empty(self.rows, vocab)
        self._wide = torch.empty_like(self._raw, dtype=self.accumulate) if self.narrow else self._raw

    @property
    def narrow(self) -> bool:
        """Logits leave the matrix product in fewer bits than sums are taken in."""
        return self.hidden_ND.dtype != self.accumulate

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Which reads, and their logits [R, V] in float32 or wider, to be overwritten at will."""
        for start in range(0, self.hidden_ND.shape[0], self.rows):
            span = slice(start, min(start + self.rows, self.hidden_ND.shape[0]))
            count = span.stop - start
            torch.mm(self.hidden_ND[span], self.weight_VD.T, out=self._raw[:count])
            if self.narrow:
                self._wide[:count].copy_(self._raw[:count])
            yield span, self._wide[:count]

    def times_weight(self, tile_RV: Tensor) -> Tensor:
        """tile W, [R, D]; the tile is rounded to the compute dtype first."""
        return self.narrowed(tile_RV) @ self.weight_VD

    def narrowed(self, tile_RV: Tensor) -> Tensor:
        return self._raw[: tile_RV.shape[0]].copy_(tile_RV) if self.narrow else tile_RV


def _one_pass(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, entropy: bool, keep: bool) -> _Pass:
    """Forward over all tiles; with `keep` also what a frozen head's gradient needs."""
    hidden_ND = hidden_ND.detach()
    tiles = _Tiles(hidden_ND, weight_VD)
    column = hidden_ND.new_empty(hidden_ND.shape[0], dtype=tiles.accumulate)
    found = _Pass(column, torch.empty_like(column), None, None)
    if entropy:
        found.expected_N, found.entropy_N = torch.empty_like(column), torch.empty_like(column)
    if keep:
        found.pW_ND = torch.empty_like(hidden_ND)
        found.plW_ND = torch.empty_like(hidden_ND) if entropy else None
    safe_N = target_N.clamp_min(0)
    for span, logits_RV in tiles:
        top_R1 = logits_RV.amax(-1, keepdim=True)
        chosen_R = logits_RV.gather(1, safe_N[span, None])[:, 0]
        weighted_RV = logits_RV.clone() if entropy else None
        exp_RV = logits_RV.sub_(top_R1).exp_()
        sum_R1 = exp_RV.sum(-1, keepdim=True)
        found.lse_N[span] = (top_R1 + sum_R1.log())[:, 0]
        found.logp_N[span] = chosen_R - found.lse_N[span]
        if weighted_RV is not None and found.expected_N is not None and found.entropy_N is not None:
            found.expected_N[span] = weighted_RV.mul_(exp_RV).sum(-1) / sum_R1[:, 0]
            found.entropy_N[span] = found.lse_N[span] - found.expected_N[span]
        if found.pW_ND is not None:
            found.pW_ND[span] = tiles.times_weight(exp_RV) / sum_R1
        if found.plW_ND is not None and weighted_RV is not None:
            found.plW_ND[span] = tiles.times_weight(weighted_RV) / sum_R1
    found.logp_N.masked_fill_(target_N < 0, 0.0)
    return found


class _FrozenHead(torch.autograd.Function):
    """One pass; the gradient is a combination of p W, (p l) W and the target's row of W."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        found = _one_pass(hidden_ND, weight_VD, target_N, entropy, keep=True)
        ctx.save_for_backward(weight_VD, target_N, found.pW_ND, found.plW_ND, found.expected_N)
        ctx.set_materialize_grads(False)
        return found.logp_N, found.lse_N, found.entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None, None, None]:
        weight_VD, target_N, pW_ND, plW_ND, expected_N = ctx.saved_tensors
        logp_N, lse_N, entropy_N = _masked(grads, target_N, pW_ND)
        hidden_grad_ND = weight_VD.index_select(0, target_N.clamp_min(0)).to(pW_ND.dtype) * logp_N[:, None]
        p_N = lse_N - logp_N
        if expected_N is not None:
            p_N = p_N + entropy_N * expected_N
            hidden_grad_ND = hidden_grad_ND - entropy_N[:, None] * plW_ND
        hidden_grad_ND = hidden_grad_ND + p_N[:, None] * pW_ND
        return hidden_grad_ND.to(pW_ND.dtype), None, None, None


class _TrainedHead(torch.autograd.Function):
    """Two passes; the weight's gradient is summed in float32 whatever the compute dtype."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        found = _one_pass(hidden_ND, weight_VD, target_N, entropy, keep=False)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, found.lse_N, found.expected_N)
        ctx.set_materialize_grads(False)
        return found.logp_N, found.lse_N, found.entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
        hidden_ND, weight_VD, target_N, lse_N, expected_N = ctx.saved_tensors
        logp_N, lse_grad_N, entropy_N = _masked(grads, target_N, lse_N)
        tiles = _Tiles(hidden_ND, weight_VD)
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=tiles.accumulate)
        safe_N = target_N.clamp_min(0)
        for span, logits_RV in tiles:
            factor_R1 = (lse_grad_N[span] - logp_N[span])[:, None]
            if expected_N is None:
                grad_RV = logits_RV.sub_(lse_N[span, None]).exp_().mul_(factor_R1)
            else:
                entropy_R1 = entropy_N[span, None]
                factor_RV = factor_R1 + entropy_R1 * (expected_N[span, None] - logits_RV)
                grad_RV = logits_RV.sub_(lse_N[span, None]).exp_().mul_(factor_RV)
            grad_RV.scatter_add_(1, safe_N[span, None], logp_N[span, None])
            grad_RV = tiles.narrowed(grad_RV)
            hidden_grad_ND[span] = grad_RV @ tiles.weight_VD
            weight_grad_VD += grad_RV.T @ hidden_ND[span]
        return hidden_grad_ND, weight_grad_VD.to(weight_VD.dtype), None, None


def _masked(grads: tuple[Tensor | None, ...], target_N: Tensor, like: Tensor) -> list[Tensor]:
    """Float32 (or wider) gradients of logp, lse and entropy: zeros where nothing came, none to absent targets."""
    zeros = torch.zeros_like(target_N, dtype=torch.promote_types(like.dtype, torch.float32))
    logp, lse, entropy = (zeros if grad is None else grad for grad in grads)
    return [logp.masked_fill(target_N < 0, 0.0), lse, entropy]
