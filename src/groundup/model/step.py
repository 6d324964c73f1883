"""One token of every text through BaseLLM, with few operations: what `Decoder.forward` does, prepared for many calls.

Weights are brought into the compute dtype once and adapters are folded into them (added in float32, rounded once), so
a step streams every weight once for all texts and casts nothing. Without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.model.few_rows import FewRows, may_copy
from groundup.model.interface import Attend
from groundup.model.rope import turn

if TYPE_CHECKING:
    from groundup.model.base import BaseLLM, Layer, Linear, RMSNorm


class Step:
    """Made for one call of the generator: it would not notice weights that change."""

    @torch.no_grad()
    def __init__(self, model: BaseLLM) -> None:
        dtype = model.compute_dtype
        self._decoder, self._head, self._dtype = model.model, model.head, dtype
        copy = may_copy(self._decoder, dtype)
        self._layers = [_Layer(cast("Layer", layer), dtype, copy) for layer in model.model.layers]
        self._norm = _Norm(model.model.norm, dtype)
        self._head_product = FewRows([model.head.weight.detach().to(dtype)], [None], copy)

    def __call__(self, token_B: Tensor, position_B: Tensor, attend: Attend) -> Tensor:
        """Logits float32 [B, V] behind one token of every text."""
        rope = self._decoder.rope(position_B, self._dtype)
        hidden_BD = self._decoder.embed_tokens(token_B, self._dtype)
        for index, layer in enumerate(self._layers):
            hidden_BD = layer(index, hidden_BD, rope, attend)
        return self._head.logits(self._norm(hidden_BD), self._head_product)


class _Layer:
    def __init__(self, layer: Layer, dtype: torch.dtype, copy: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._head_dim = attention.head_dim
        self._before, self._between = (
            _Norm(norm, dtype) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self._query_norm, self._key_norm = (
            None if norm is None else _Norm(norm, dtype) for norm in (attention.q_norm, attention.k_norm)
        )
        self._qkv = _joined((attention.q_proj, attention.k_proj, attention.v_proj), dtype, copy)
        self._output = _joined((attention.o_proj,), dtype, copy)
        self._gate_up = _joined((mlp.gate_proj, mlp.up_proj), dtype, copy)
        self._down = _joined((mlp.down_proj,), dtype, copy)

    def __call__(self, index: int, hidden_BD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        query, key, value = (
            x.unflatten(-1, (-1, self._head_dim)) for x in self._qkv(self._before(hidden_BD))
        )
        if self._query_norm is not None and self._key_norm is not None:
            query, key = self._query_norm(query), self._key_norm(key)
        attended = attend(index, turn(query, *rope), turn(key, *rope), value).flatten(1)
        hidden_BD = self._output.onto(hidden_BD, attended)
        gate, up = self._gate_up(self._between(hidden_BD))
        return self._down.onto(hidden_BD, F.silu(gate).mul_(up))


def _joined(linears: Sequence[Linear], dtype: torch.dtype, copy: bool) -> FewRows:
    """Linear layers of one input."""
    return FewRows(
        [linear.folded(dtype) for linear in linears],
        [None if linear.bias is None else linear.bias.detach().to(dtype) for linear in linears],
        copy,
    )


class _Norm:
    """As `functions.rms_norm`."""

    def __init__(self, norm: RMSNorm, dtype: torch.dtype) -> None:
        self._weight, self._eps = norm.weight.detach().to(dtype), norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype.itemsize >= 4:
            return F.rms_norm(x, self._weight.shape, self._weight, self._eps)
        wide = x.float()
        mean = torch.linalg.vecdot(wide, wide)[..., None] / x.shape[-1]
        return (wide * torch.rsqrt(mean + self._eps)).to(x.dtype) * self._weight
