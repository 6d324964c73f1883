"""How a layer turns products of queries and keys into weights, where that is more than a scaled softmax.

Gemma 2 squeezes the products (softcap), gpt-oss lets every query give some weight to nothing (sinks), Granite and
others choose their own scale. `weigh` says all of it in the plainest way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """What a layer asks of attention; the defaults are 1 / sqrt(d), every key up to the query's own, and a softmax."""

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None
    """c: a score becomes c tanh(score / c)."""
    sinks_H: Tensor | None = None
    """A logit a query head, which takes part in the softmax and has no value."""

    @property
    def written_out(self) -> bool:
        """Whether the scores themselves must be seen, so that no fused attention serves."""
        return self.softcap is not None or self.sinks_H is not None


def weigh(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scoring: Scoring) -> Tensor:
    """Attention [..., H, n, d] with every score in memory, in float32.

    Args:
        query: [..., H, n, d]
        key, value: [..., H, m, d], with as many heads as the queries.
        visible: bool, broadcast to [..., H, n, m].
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale
    score = (query @ key.mT).to(wide) * scale
    if scoring.softcap is not None:
        score = scoring.softcap * torch.tanh(score / scoring.softcap)
    score = score.masked_fill(~visible, -math.inf)
    if scoring.sinks_H is None:
        return score.softmax(-1).to(value.dtype) @ value
    sinks = scoring.sinks_H.to(wide)[:, None, None].expand(*score.shape[:-1], 1)
    weight = torch.cat((score, sinks), -1).softmax(-1)[..., :-1]
    return weight.to(value.dtype) @ value
