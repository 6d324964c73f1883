"""Attention over a forest of segments: the only file that reads parents.

A segment's queries attend, causally and aligned at the bottom right, to the keys and values of their chain: the
parent segment, then the segment itself. With a sliding window of w, a query sees the last w keys up to its own.

`plain_attention` says this in the plainest way, one segment at a time. `_BucketAttention` is the same on a CPU:
queries are cut into tiles, tiles of like shape share one padded batch of matrix products, and the query heads of a
key-value head lie side by side as rows. Which tiles go together is decided once a batch, for all layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.batch.types import Batch

TILE_QUERIES = 256
"""Longer segments are cut, since a causal rectangle wastes half of its area."""
MAX_PADDING = 1.15
"""Neighbouring shapes merge while the padded area is at most this much of the true one."""
KEPT_PROBABILITIES = 1 << 25
"""Probabilities kept for the backward in one layer; more are computed again instead."""


@dataclass(frozen=True)
class Chain:
    """One segment's place in the row and, before it, its parent's; half-open token ranges."""

    start: int
    stop: int
    parent_start: int = 0
    parent_stop: int = 0

    @property
    def parent_length(self) -> int:
        return self.parent_stop - self.parent_start

    def keys(self, first: int, last: int) -> Tensor:
        """Places in the row of the chain's tokens first..last, counted along the chain."""
        places = torch.cat(
            (torch.arange(self.parent_start, self.parent_stop), torch.arange(self.start, self.stop))
        )
        return places[first:last]


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
        self.chains = chains(batch)
        self.buckets: dict[int | None, list[_Bucket]] = {}
        self.plain = plain or batch.token_T.device.type != "cpu"

    def __call__(self, layer: int, query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor) -> Tensor:
        """[T, H, d] from queries [T, H, d] and keys and values [T, K, d] (rotary embedding applied)."""
        window = self.window_L[layer]
        if self.plain:
            return plain_attention(query_THd, key_TKd, value_TKd, self.chains, window)
        if window not in self.buckets:
            heads = (key_TKd.shape[1], query_THd.shape[1] // key_TKd.shape[1])
            self.buckets[window] = _make_buckets(self.chains, window, heads, query_THd.dtype)
        return _BucketAttention.apply(query_THd, key_TKd, value_TKd, self.buckets[window])


def plain_attention(
    query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor, segments: list[Chain], window: int | None
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
        visible = _visible(
            torch.arange(chain.parent_length, key.shape[1], device=key.device)[:, None],
            torch.arange(key.shape[1], device=key.device)[None],
            window,
        )
        outputs.append(F.scaled_dot_product_attention(query, key, value, attn_mask=visible).transpose(0, 1))
    return torch.cat(outputs)


def _visible(query_place: Tensor, key_place: Tensor, window: int | None) -> Tensor:
    visible = key_place <= query_place
    return visible if window is None else visible & (key_place > query_place - window)


@dataclass(frozen=True)
class _Tile:
    """Some neighbouring queries of a chain, and the keys that any of them sees; places along the chain."""

    chain: Chain
    first_query: int
    last_query: int
    first_key: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.last_query - self.first_query, self.last_query - self.first_key


@dataclass(frozen=True)
class _Bucket:
    """Tiles (B) padded to one shape of n queries and m keys, as places in the row."""

    query_place: Tensor
    """[B * n]; padding points at the tile's first query."""
    key_place: Tensor
    """[B * m]; padding points at the tile's first key, which no true query takes for it."""
    shape: tuple[int, int, int]
    """(B, n, m)"""
    bias: Tensor
    """[B * K, n * groups, m]: minus infinity where a query must not see a key, else 0."""
    output_place: Tensor
    """[true queries]: which of the B * n rows are true, in the row's order within each tile."""
    true_query: Tensor
    """[true queries]: their places in the row."""


def _make_buckets(
    segments: list[Chain], window: int | None, heads: tuple[int, int], dtype: torch.dtype
) -> list[_Bucket]:
    """`heads`: key-value heads, and query heads of each."""
    tiles = sorted(_cut(segments, window), key=lambda tile: tile.shape)
    groups: list[list[_Tile]] = []
    area = 0
    for tile in tiles:
        true_area = math.prod(tile.shape)
        if groups:
            merged = [*groups[-1], tile]
            padded = len(merged) * max(t.shape[0] for t in merged) * max(t.shape[1] for t in merged)
            if padded <= MAX_PADDING * (area + true_area):
                groups[-1], area = merged, area + true_area
                continue
        groups.append([tile])
        area = true_area
    return [_bucket(group, window, heads, dtype) for group in groups]


def _cut(segments: list[Chain], window: int | None) -> list[_Tile]:
    tiles = []
    for chain in segments:
        first, end = chain.parent_length, chain.parent_length + chain.stop - chain.start
        pieces = max(1, math.ceil((end - first) / TILE_QUERIES))
        edges = [first + (end - first) * piece // pieces for piece in range(pieces + 1)]
        for low, high in itertools.pairwise(edges):
            tiles.append(_Tile(chain, low, high, 0 if window is None else max(0, low - window + 1)))
    return tiles


def _bucket(tiles: list[_Tile], window: int | None, heads: tuple[int, int], dtype: torch.dtype) -> _Bucket:
    queries, keys = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    query_Bn = torch.zeros(len(tiles), queries, dtype=torch.int64)
    key_Bm = torch.zeros(len(tiles), keys, dtype=torch.int64)
    true_Bn = torch.zeros(len(tiles), queries, dtype=torch.bool)
    for row, tile in enumerate(tiles):
        count, width = tile.shape
        query_Bn[row] = tile.chain.start + tile.first_query - tile.chain.parent_length
        query_Bn[row, :count] += torch.arange(count)
        places = tile.chain.keys(tile.first_key, tile.last_query)
        key_Bm[row] = places[0]
        key_Bm[row, :width] = places
        true_Bn[row, :count] = True
    # A padded query would look beyond the tile's keys: let it look where the last true query does.
    last_B11 = torch.tensor([tile.last_query - 1 for tile in tiles])[:, None, None]
    query_B1 = torch.tensor([tile.first_query for tile in tiles])[:, None, None]
    key_B1 = torch.tensor([tile.first_key for tile in tiles])[:, None, None]
    query_place = torch.minimum(query_B1 + torch.arange(queries)[None, :, None], last_B11)
    visible_Bnm = _visible(query_place, key_B1 + torch.arange(keys)[None, None, :], window)
    bias_Bnm = torch.zeros(visible_Bnm.shape, dtype=dtype).masked_fill_(~visible_Bnm, -math.inf)
    output_place = true_Bn.flatten().nonzero()[:, 0]
    return _Bucket(
        query_place=query_Bn.flatten(),
        key_place=key_Bm.flatten(),
        shape=(len(tiles), queries, keys),
        bias=bias_Bnm.repeat_interleave(heads[0], 0).repeat_interleave(heads[1], 1),
        output_place=output_place,
        true_query=query_Bn.flatten()[output_place],
    )


class _BucketAttention(torch.autograd.Function):
    """Scores, softmax and sums of every bucket; gradients of keys and values are summed in float32.

    The softmax takes and gives the compute dtype and is evaluated in float32 between.
    """

    @staticmethod
    def forward(
        ctx: Any, query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor, buckets: list[_Bucket]
    ) -> Tensor:
        heads = key_TKd.shape[1]
        elements = sum(bucket.bias.numel() for bucket in buckets)
        keep = any(ctx.needs_input_grad) and elements <= KEPT_PROBABILITIES
        output_THd = torch.empty_like(query_THd)
        kept = []
        for bucket in buckets:
            probability = _probabilities(query_THd, key_TKd, bucket)
            folded = torch.bmm(probability, _keys(value_TKd, bucket))
            rows = _unfold(folded, bucket, heads, query_THd.shape[1])
            output_THd.index_copy_(0, bucket.true_query, rows.index_select(0, bucket.output_place))
            kept += [probability] if keep else []
        ctx.save_for_backward(query_THd, key_TKd, value_TKd, *kept)
        ctx.buckets = buckets
        return output_THd

    @staticmethod
    def backward(ctx: Any, grad_THd: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_THd, key_TKd, value_TKd, *kept = ctx.saved_tensors
        heads, all_heads, dim = key_TKd.shape[1], query_THd.shape[1], query_THd.shape[2]
        wide = torch.promote_types(key_TKd.dtype, torch.float32)
        query_grad = torch.empty_like(query_THd)
        key_grad, value_grad = (torch.zeros_like(key_TKd, dtype=wide) for _ in range(2))
        for number, bucket in enumerate(ctx.buckets):
            probability = kept[number] if kept else _probabilities(query_THd, key_TKd, bucket)
            out_grad = _fold(_true_rows(grad_THd, bucket), bucket, heads)
            _add(value_grad, bucket, torch.bmm(probability.mT, out_grad))
            grad = torch.bmm(out_grad, _keys(value_TKd, bucket).mT)
            grad = torch._softmax_backward_data(grad, probability, -1, probability.dtype)
            grad = grad.mul_(dim**-0.5)
            folded = torch.bmm(grad, _keys(key_TKd, bucket))
            rows = _unfold(folded, bucket, heads, all_heads)
            query_grad.index_copy_(0, bucket.true_query, rows.index_select(0, bucket.output_place))
            query = _fold(query_THd.index_select(0, bucket.query_place), bucket, heads)
            _add(key_grad, bucket, torch.bmm(grad.mT, query))
        return query_grad, key_grad.to(key_TKd.dtype), value_grad.to(value_TKd.dtype), None


def _probabilities(query_THd: Tensor, key_TKd: Tensor, bucket: _Bucket) -> Tensor:
    """[B * K, n * groups, m]"""
    heads, dim = key_TKd.shape[1:]
    query = _fold(query_THd.index_select(0, bucket.query_place), bucket, heads)
    return torch.baddbmm(bucket.bias, query, _keys(key_TKd, bucket).mT, alpha=dim**-0.5).softmax(dim=-1)


def _fold(x: Tensor, bucket: _Bucket, heads: int) -> Tensor:
    """[B * n, H, d] to [B * K, n * groups, d], in memory of its own."""
    tiles, queries, _ = bucket.shape
    grouped = x.view(tiles, queries, heads, -1, x.shape[-1]).transpose(1, 2)
    return grouped.reshape(tiles * heads, -1, x.shape[-1])


def _unfold(folded: Tensor, bucket: _Bucket, heads: int, all_heads: int) -> Tensor:
    """[B * K, n * groups, d] to [B * n, H, d]"""
    tiles, queries, _ = bucket.shape
    grouped = folded.view(tiles, heads, queries, -1, folded.shape[-1]).transpose(1, 2)
    return grouped.reshape(tiles * queries, all_heads, folded.shape[-1])


def _keys(x_TKd: Tensor, bucket: _Bucket) -> Tensor:
    """[B * K, m, d]"""
    tiles, _, keys = bucket.shape
    heads, dim = x_TKd.shape[1:]
    gathered = x_TKd.index_select(0, bucket.key_place).view(tiles, keys, heads, dim)
    return gathered.transpose(1, 2).reshape(tiles * heads, keys, dim)


def _true_rows(grad_THd: Tensor, bucket: _Bucket) -> Tensor:
    """Gradients of the outputs [B * n, H, d], zero where a query is padding."""
    tiles, queries, _ = bucket.shape
    rows = grad_THd.new_zeros(tiles * queries, *grad_THd.shape[1:])
    return rows.index_copy_(0, bucket.output_place, grad_THd.index_select(0, bucket.true_query))


def _add(total_TKd: Tensor, bucket: _Bucket, grad: Tensor) -> None:
    """Add [B * K, m, d] at the keys' places; a parent's key has one place in many tiles."""
    tiles, _, keys = bucket.shape
    heads, dim = total_TKd.shape[1:]
    rows = grad.view(tiles, heads, keys, dim).transpose(1, 2).reshape(tiles * keys, heads, dim)
    total_TKd.index_add_(0, bucket.key_place, rows.to(total_TKd.dtype))
