"""The output head: what the model says about chosen next tokens, without ever holding [N, V] logits.

Logits exist a block of reads at a time (`logits.py`). For one read, with logits l = f(h W^T + bias), log-sum-exp z,
p = exp(l - z) and the slope s = f'(h W^T + bias):

    logp[y] = l[y] - z          d logp[y] / dl = onehot(y) - p
    lse     = z                 d lse     / dl = p
    entropy = z - sum(p l)      d entropy / dl = p (sum(p l) - l)          dh = (s dl) W,  dW = (s dl)^T h

A frozen head therefore needs only (s p) W and, for the entropy, (s p l) W, two [N, D] matrices, to give its gradients.
A trained head that is told d loss / d logp beforehand takes dh and dW from the forward's own probabilities; else it
makes them again in the backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.few_rows import FewRows, few_rows
from groundup.model.logits import Blocks, Rule, Tile, accumulator, add_product

Columns = tuple[Tensor, Tensor | None, Tensor | None]
"""logp, lse and entropy, [N] each."""


class Head(nn.Module):
    """`lm_head` of Hugging Face: the weight [V, D], tied to the embedding where both are the same parameter.

    Logits are softcap(scale (h W^T + bias)), with softcap(x) = c tanh(x / c).
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        *,
        bias: bool = False,
        scale: float = 1.0,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None
        self.rule = Rule(scale, softcap)

    def forward(
        self,
        hidden_ND: Tensor,
        target_N: Tensor,
        needs: frozenset[str],
        gradient_N: Tensor | None = None,
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        """Float32 [N] for each of `needs` out of "logp", "lse", "entropy" (nats), of logits divided by `temperature`.

        "entropy_seen" is the entropy without a gradient, which costs a frozen head one product less.
        A target of -1 has no log-probability: it gets 0 and no gradient. `gradient_N` is d loss / d logp where it is
        known already; it saves a trained head a third of its work. Should another gradient arrive, that one counts.
        """
        trained = any(each is not None and each.requires_grad for each in (self.weight, self.bias))
        entropy = "entropy" in needs
        seen = not entropy and "entropy_seen" in needs
        rule = self.rule._replace(temperature=temperature)
        inputs = (hidden_ND, self.weight, self.bias, target_N, rule)
        columns: Columns
        if not (torch.is_grad_enabled() and (hidden_ND.requires_grad or trained)):
            found = _one_pass(Blocks(hidden_ND, self.weight, self.bias, rule), target_N, entropy or seen)
            columns = (found.logp_N, found.lse_N, found.entropy_N)
        elif not trained:
            columns = _FrozenHead.apply(*inputs, entropy, seen)
        elif gradient_N is not None and needs == {"logp"}:
            gradient_N = gradient_N.to(accumulator(hidden_ND.dtype))
            columns = (_FusedHead.apply(*inputs, gradient_N), None, None)
        else:
            columns = _TrainedHead.apply(*inputs, entropy, seen)
        named = zip(("logp", "lse", "entropy_seen" if seen else "entropy"), columns, strict=True)
        return {name: column for name, column in named if name in needs and column is not None}

    def logits(self, hidden_ND: Tensor, product: FewRows | None = None) -> Tensor:
        """Float32 [N, V]; for a few rows, as generation needs. product: of the head's weight, prepared already."""
        bias_V = None if self.bias is None else self.bias.to(accumulator(hidden_ND.dtype))
        if product is None:
            return self.rule.apply(few_rows(hidden_ND, self.weight.to(hidden_ND.dtype)), bias_V)
        return self.rule.apply(product(hidden_ND)[0], bias_V)


class _Found:
    """What one walk over the logits notes down of each read."""

    def __init__(
        self, blocks: Blocks, target_N: Tensor, entropy: bool, keep: bool, seen: bool = False
    ) -> None:
        reads = len(target_N)
        self.logp_N, self.lse_N = blocks.hidden_ND.new_empty(2, reads, dtype=blocks.accumulator).unbind()
        self.expected_N = torch.empty_like(self.lse_N) if entropy or seen else None
        """The expected logit, sum(p l)."""
        self.entropy_N = torch.empty_like(self.lse_N) if entropy or seen else None
        self.slope_N = torch.ones_like(self.lse_N) if keep else None
        """Slope at the target's logit."""
        self.pW_ND = torch.empty_like(blocks.hidden_ND) if keep else None
        self.plW_ND = torch.empty_like(blocks.hidden_ND) if keep and entropy else None
        self._rule, self._index_N1 = blocks.rule, target_N.clamp_min(0)[:, None]

    def note(self, tile: Tile) -> None:
        """The softmax has summed already: with the largest logit t, z = t - log p[t], exact where p is largest."""
        span, _, logit_RV, p_RV = tile
        top_R, log_top_R = logit_RV.amax(-1), p_RV.amax(-1).log_()
        chosen_R = logit_RV.gather(1, self._index_N1[span])[:, 0]
        self.lse_N[span] = top_R - log_top_R
        self.logp_N[span] = chosen_R - top_R + log_top_R
        if self.expected_N is not None and self.entropy_N is not None:
            self.expected_N[span] = torch.linalg.vecdot(p_RV, logit_RV)
            self.entropy_N[span] = self.lse_N[span] - self.expected_N[span]
        if self.slope_N is not None:
            self._rule.times_slope_(self.slope_N[span], chosen_R)


def _one_pass(
    blocks: Blocks,
    target_N: Tensor,
    entropy: bool,
    keep: bool = False,
    gradient: _Gradient | None = None,
    seen: bool = False,
) -> _Found:
    """Forward over all blocks; with `keep` also what a frozen head's gradient needs, or a trained one's gradient."""
    found = _Found(blocks, target_N, entropy, keep, seen)
    second_BV = blocks.new_block() if found.plW_ND is not None else None
    for span, block_BV in blocks:
        for tile in blocks.tiles(span, block_BV):
            found.note(tile)
            if keep:
                p_RV = blocks.rule.times_slope_(tile.p_RV, tile.logit_RV)
                if second_BV is not None:
                    second_BV[tile.span.start - span.start :][: len(p_RV)] = p_RV * tile.logit_RV
                tile.raw_RV.copy_(p_RV)
            if gradient is not None:
                gradient.fill(tile)
        if found.pW_ND is not None:
            torch.mm(block_BV, blocks.weight_VD, out=found.pW_ND[span])
        if found.plW_ND is not None and second_BV is not None:
            torch.mm(second_BV[: len(block_BV)], blocks.weight_VD, out=found.plW_ND[span])
        if gradient is not None:
            gradient.add(span, block_BV)
    found.logp_N.masked_fill_(target_N < 0, 0.0)
    return found


class _Gradient:
    """Gradients of hidden, weight and bias, out of those of logp, lse and entropy.

    The weight's is summed in float32 whatever the compute dtype.
    """

    def __init__(
        self, blocks: Blocks, target_N: Tensor, grads: tuple[Tensor | None, ...], entropy: bool
    ) -> None:
        self.hidden_ND = torch.empty_like(blocks.hidden_ND)
        # Left as it comes when the first block will be written over it: zeros would be one more way through memory.
        fresh = torch.empty_like if len(target_N) else torch.zeros_like
        self.weight_VD = fresh(blocks.weight_VD, dtype=blocks.accumulator)
        self.bias_V = None if blocks.bias_V is None else torch.zeros_like(blocks.bias_V)
        logp_N, lse_N, entropy_N = _masked(grads, target_N, blocks.accumulator)
        self._logp_N1, self._p_N1 = logp_N[:, None], (lse_N - logp_N)[:, None]
        self._entropy_N1 = entropy_N[:, None] if entropy else None
        self._blocks, self._index_N1 = blocks, target_N.clamp_min(0)[:, None]

    def fill(self, tile: Tile) -> None:
        """The loss's gradient of the tile's hidden W^T, in place of the tile's raw products."""
        span, raw_RV, logit_RV, p_RV = tile
        if self._entropy_N1 is None:
            grad_RV = p_RV.mul_(self._p_N1[span])
        else:
            expected_R1 = torch.linalg.vecdot(p_RV, logit_RV)[:, None]
            grad_RV = p_RV.mul_((expected_R1 - logit_RV).mul_(self._entropy_N1[span]).add_(self._p_N1[span]))
        grad_RV.scatter_add_(1, self._index_N1[span], self._logp_N1[span])
        self._blocks.rule.times_slope_(grad_RV, logit_RV)
        if self.bias_V is not None:
            self.bias_V += grad_RV.sum(0)
        raw_RV.copy_(grad_RV)

    def of(self, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """All three, in the dtypes of what they are gradients of."""
        bias_grad_V = None if bias_V is None or self.bias_V is None else self.bias_V.to(bias_V.dtype)
        return self.hidden_ND, self.weight_VD.to(weight_VD.dtype), bias_grad_V

    def add(self, span: slice, block_BV: Tensor) -> None:
        """Take the products of a block that `fill` has gone over."""
        torch.mm(block_BV, self._blocks.weight_VD, out=self.hidden_ND[span])
        add_product(self.weight_VD, block_BV, self._blocks.hidden_ND[span], first=span.start == 0)


def _recomputed(
    blocks: Blocks, target_N: Tensor, grads: tuple[Tensor | None, ...], entropy: bool
) -> _Gradient:
    gradient = _Gradient(blocks, target_N, grads, entropy)
    for span, block_BV in blocks:
        for tile in blocks.tiles(span, block_BV):
            gradient.fill(tile)
        gradient.add(span, block_BV)
    return gradient


class _FrozenHead(torch.autograd.Function):
    """One pass; the gradient is a combination of (s p) W, (s p l) W and the target's row of W."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        rule: Rule,
        entropy: bool,
        seen: bool,
    ) -> Columns:
        found = _one_pass(Blocks(hidden_ND, weight_VD, bias_V, rule), target_N, entropy, keep=True, seen=seen)
        expected_N = found.expected_N if entropy else None
        ctx.save_for_backward(weight_VD, target_N, found.slope_N, found.pW_ND, found.plW_ND, expected_N)
        if seen:
            ctx.mark_non_differentiable(found.entropy_N)
        ctx.set_materialize_grads(False)
        return found.logp_N, found.lse_N, found.entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        weight_VD, target_N, slope_N, pW_ND, plW_ND, expected_N = ctx.saved_tensors
        logp_N, lse_N, entropy_N = _masked(grads, target_N, slope_N.dtype)
        row_ND = weight_VD.index_select(0, target_N.clamp_min(0)).to(pW_ND.dtype)
        hidden_grad_ND = row_ND * (logp_N * slope_N)[:, None]
        p_N = lse_N - logp_N
        if expected_N is not None:
            p_N = p_N + entropy_N * expected_N
            hidden_grad_ND = hidden_grad_ND - entropy_N[:, None] * plW_ND
        hidden_grad_ND = hidden_grad_ND + p_N[:, None] * pW_ND
        return hidden_grad_ND.to(pW_ND.dtype), None, None, None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """Two passes: the backward makes the probabilities again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        rule: Rule,
        entropy: bool,
        seen: bool,
    ) -> Columns:
        found = _one_pass(Blocks(hidden_ND, weight_VD, bias_V, rule), target_N, entropy, seen=seen)
        if seen:
            ctx.mark_non_differentiable(found.entropy_N)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N)
        ctx.rule, ctx.entropy = rule, entropy
        ctx.set_materialize_grads(False)
        return found.logp_N, found.lse_N, found.entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N = ctx.saved_tensors
        blocks = Blocks(hidden_ND, weight_VD, bias_V, ctx.rule)
        gradient = _recomputed(blocks, target_N, grads, ctx.entropy)
        return (*gradient.of(weight_VD, bias_V), None, None, None, None)


class _FusedHead(torch.autograd.Function):
    """One pass for logp alone: the forward takes the gradients for the d loss / d logp that is to come."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        rule: Rule,
        gradient_N: Tensor,
    ) -> Tensor:
        blocks = Blocks(hidden_ND, weight_VD, bias_V, rule)
        gradient = _Gradient(blocks, target_N, (gradient_N, None, None), entropy=False)
        found = _one_pass(blocks, target_N, entropy=False, gradient=gradient)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N, gradient_N)
        ctx.rule, ctx.gradients = rule, gradient.of(weight_VD, bias_V)
        return found.logp_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N, gradient_N = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None  # let go: autograd then keeps them without a copy
        if gradients is None or not torch.equal(grad_N, gradient_N):
            blocks = Blocks(hidden_ND, weight_VD, bias_V, ctx.rule)
            gradient = _recomputed(blocks, target_N, (grad_N, None, None), entropy=False)
            gradients = gradient.of(weight_VD, bias_V)
        return (*gradients, None, None, None)


def _masked(grads: tuple[Tensor | None, ...], target_N: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Gradients of logp, lse and entropy: zeros where nothing came, none to absent targets."""
    zeros = torch.zeros_like(target_N, dtype=dtype)
    logp, lse, entropy = (zeros if grad is None else grad for grad in grads)
    return [logp.masked_fill(target_N < 0, 0.0), lse, entropy]
