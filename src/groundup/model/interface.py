"""Our attention inside transformers' models: one registered function, which hands each layer's work to `attend`.

transformers calls a registered attention with whatever keywords its model was called with, so the batch's attention
travels as the keyword `attend` through the model's own forward. For a name that has no mask function transformers
builds no mask.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from groundup.model.scoring import Scoring

NAME = "groundup"


class Attend(Protocol):
    """Attention of one layer over a flat run of tokens; `ForestAttention` and `PromptCache` are such."""

    calls: int
    """How often a layer has asked."""

    def __call__(
        self,
        layer: int,
        query_THd: Tensor,
        key_TKd: Tensor,
        value_TKd: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor: ...


class NotOurAttention(Exception):
    """The model cannot run with `attend`; the message says why, for people."""


def register() -> None:
    """Make the attention known to transformers, under `NAME`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    attend: Attend | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' shapes, [1, H, T, d] in and [1, T, H, d] out, to ours."""
    if attend is None:
        raise NotOurAttention("its layers do not pass on what the model is called with")
    if position_bias is not None or attention_mask is not None:
        raise NotOurAttention("its layers ask for more than a causal attention")
    scoring = Scoring(scaling, sliding_window, softcap, s_aux)
    query_THd, key_TKd, value_TKd = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    return attend(module.layer_idx, query_THd, key_TKd, value_TKd, scoring)[None], None
