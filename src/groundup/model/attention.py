"""Attention over a forest of segments: the only file that reads parents.

A segment's queries attend, causally and aligned at the bottom right, to the keys and values of their chain: the
parent segment, then the segment itself. With a sliding window of w, a query sees the last w keys up to its own.

`plain_attention` says this in the plainest way, one segment at a time; on a CPU `tiles.py` does the same faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.batch.types import Batch
from groundup.model.scoring import Scoring, weigh
from groundup.model.tiles import Chain, Group, TiledAttention, tile_groups, visible


def chains(batch: Batch) -> list[Chain]:
    """The segments of a batch, in order, each with its parent's place."""
    starts, lengths, parents = batch.start_S.tolist(), batch.length_S.tolist(), batch.parent_S.tolist()
    found = []
    for start, length, parent in zip(starts, lengths, parents, strict=True):
        if parent < 0:
            found.append(Chain(start, start + length))
        else:
            found.append(Chain(start, start + length, starts[parent], starts[parent] + lengths[parent]))
    return found


class ForestAttention:
    """Attention for one batch; made once, called by every layer.

    Args:
        batch: whose segments.
        windows: the sliding windows of the layers, None for full attention.
        plain: use the plain reference also where a faster form exists.
    """

    def __init__(self, batch: Batch, windows: Sequence[int | None], plain: bool = False) -> None:
        self.window_L = windows
        self.calls = 0
        self.chains = chains(batch)
        self._groups: dict[tuple[int | None, int], list[Group]] = {}
        self.plain = plain or batch.token_T.device.type != "cpu"

    def __call__(
        self,
        layer: int,
        query_THd: Tensor,
        key_TKd: Tensor,
        value_TKd: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """[T, H, d] from queries [T, H, d] and keys and values [T, K, d] (rotary embedding applied).

        `scoring` is what transformers' layers ask for; without it the layer's window is the model's.
        """
        self.calls += 1
        window = self.window_L[layer] if scoring is None else scoring.window
        # The tiles write out no scores, and take it that values are as wide as keys.
        if self.plain or value_TKd.shape[-1] != key_TKd.shape[-1] or (scoring and scoring.written_out):
            return plain_attention(query_THd, key_TKd, value_TKd, self.chains, window, scoring)
        key = (window, query_THd.shape[1] // key_TKd.shape[1])
        if key not in self._groups:
            self._groups[key] = tile_groups(self.chains, *key, query_THd.dtype)
        scale = scoring.scale if scoring and scoring.scale is not None else query_THd.shape[-1] ** -0.5
        return TiledAttention.apply(query_THd, key_TKd, value_TKd, self._groups[key], scale)


def plain_attention(
    query_THd: Tensor,
    key_TKd: Tensor,
    value_TKd: Tensor,
    segments: list[Chain],
    window: int | None,
    scoring: Scoring | None = None,
) -> Tensor:
    """The reference, and the form for accelerators: each segment by PyTorch's attention."""
    outputs = []
    groups = query_THd.shape[1] // key_TKd.shape[1]
    for chain in segments:
        spans = [slice(chain.parent_start, chain.parent_stop), slice(chain.start, chain.stop)]
        key, value = (
            torch.cat([x_TKd[span] for span in spans]).repeat_interleave(groups, dim=1).transpose(0, 1)
            for x_TKd in (key_TKd, value_TKd)
        )
        query = query_THd[chain.start : chain.stop].transpose(0, 1)
        seen = visible(
            torch.arange(chain.parent_length, key.shape[1], device=key.device)[:, None],
            torch.arange(key.shape[1], device=key.device)[None],
            window,
        )
        if scoring is not None and scoring.written_out:
            output = weigh(query, key, value, seen, scoring)
        else:
            scale = scoring.scale if scoring else None
            output = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)
