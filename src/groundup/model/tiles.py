"""Segment attention on a CPU: queries are cut into tiles, and each tile, or batch of tiles, is three matrix products.

A tile's queries, keys and values are gathered heads first, with the query heads of a key-value head side by side as
rows, so that no product copies or repeats anything. Small tiles of like shape are padded to one shape and share their
calls, which also gives every core its part. Which tiles go together is decided once a row, for all layers.

Shape letters: B tiles of a group, n queries and m keys of a tile, K key-value heads, g query heads of each, d.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.machine.estimate import KEPT_PROBABILITIES

TILE_QUERIES = 128
"""Longer segments are cut, since a causal rectangle wastes half of its area."""
ALONE = 24_000
"""A tile of so many scores is not padded to share its calls: gathering would cost more than the calls do."""
MAX_PADDING = 1.3
"""Smaller ones of neighbouring shapes merge while the padded area is at most this much of the true one."""
KEY_MULTIPLE = 32
"""Keys are padded to a multiple of it: a softmax over rows of other lengths takes up to three times as long."""


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

    def spans(self, first: int, last: int) -> tuple[slice, ...]:
        """Where in the row the chain's tokens first..last lie, counted along the chain; one span where they touch."""
        in_parent = slice(self.parent_start + first, self.parent_start + min(last, self.parent_length))
        shift = self.start - self.parent_length
        own = slice(max(first, self.parent_length) + shift, last + shift)
        if in_parent.start >= in_parent.stop:
            return (own,)
        return (slice(in_parent.start, own.stop),) if in_parent.stop == own.start else (in_parent, own)


@dataclass(frozen=True)
class Tile:
    """Some neighbouring queries of a chain, and the keys that any of them sees; places along the chain."""

    chain: Chain
    first_query: int
    last_query: int
    first_key: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.last_query - self.first_query, self.last_query - self.first_key

    @property
    def query_span(self) -> slice:
        (span,) = self.chain.spans(self.first_query, self.last_query)
        return span

    @property
    def key_spans(self) -> tuple[slice, ...]:
        return self.chain.spans(self.first_key, self.last_query)


@dataclass(frozen=True)
class Group:
    """Tiles (B) that share their matrix products, padded to one shape of n queries and m keys."""

    tiles: tuple[Tile, ...]
    shape: tuple[int, int, int]
    """(B, n, m)"""
    query: Tensor | None
    """[B * n]: places in the row; padding stands behind its last token. None for one tile, whose spans say it."""
    key: Tensor | None
    """[B * m]: places in the row; padding points at the tile's first key, which no query takes for it."""
    bias: Tensor
    """[B, n * g, m]: minus infinity where a query must not see a key, else 0."""


def tile_groups(
    chains: Sequence[Chain], window: int | None, heads_per_key: int, dtype: torch.dtype
) -> list[Group]:
    """The tiles of a row's segments, and which of them go together."""
    groups: list[list[Tile]] = []
    area = 0
    for tile in sorted(_cut(chains, window), key=lambda tile: tile.shape):
        true_area = math.prod(tile.shape)
        merged = [*groups[-1], tile] if groups and true_area < ALONE else []
        if merged and len(merged) * math.prod(_padded_shape(merged)) <= MAX_PADDING * (area + true_area):
            groups[-1], area = merged, area + true_area
        else:
            groups.append([tile])
            area = true_area
    tokens = max(chain.stop for chain in chains)
    return [_group(group, window, heads_per_key, dtype, tokens) for group in groups]


def _cut(chains: Sequence[Chain], window: int | None) -> list[Tile]:
    tiles = []
    for chain in chains:
        first, end = chain.parent_length, chain.parent_length + chain.stop - chain.start
        pieces = max(1, math.ceil((end - first) / TILE_QUERIES))
        edges = [first + (end - first) * piece // pieces for piece in range(pieces + 1)]
        for low, high in itertools.pairwise(edges):
            tiles.append(Tile(chain, low, high, 0 if window is None else max(0, low - window + 1)))
    return tiles


def _padded_shape(tiles: Sequence[Tile]) -> tuple[int, int]:
    queries, keys = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    return queries, -(-keys // KEY_MULTIPLE) * KEY_MULTIPLE


def _group(
    tiles: list[Tile], window: int | None, heads_per_key: int, dtype: torch.dtype, tokens: int
) -> Group:
    queries, keys = _padded_shape(tiles)
    query = key = None
    if len(tiles) > 1:
        query = torch.cat([_places([tile.query_span], queries, tokens) for tile in tiles])
        key = torch.cat([_places(tile.key_spans, keys, tile.key_spans[0].start) for tile in tiles])
    # A padded query would look beyond the tile's keys: let it look where the last true query does.
    last_B11 = torch.tensor([tile.last_query - 1 for tile in tiles])[:, None, None]
    query_B1 = torch.tensor([tile.first_query for tile in tiles])[:, None, None]
    key_B1 = torch.tensor([tile.first_key for tile in tiles])[:, None, None]
    query_Bn1 = torch.minimum(query_B1 + torch.arange(queries)[None, :, None], last_B11)
    visible_Bnm = visible(query_Bn1, key_B1 + torch.arange(keys)[None, None, :], window)
    bias_Bnm = torch.zeros(visible_Bnm.shape, dtype=dtype).masked_fill_(~visible_Bnm, -math.inf)
    shape = (len(tiles), queries, keys)
    return Group(tuple(tiles), shape, query, key, bias_Bnm.repeat_interleave(heads_per_key, 1))


def visible(query_place: Tensor, key_place: Tensor, window: int | None) -> Tensor:
    """Which keys a query sees: none behind itself, and with a window only the last of them, itself included."""
    seen = key_place <= query_place
    return seen if window is None else seen & (key_place > query_place - window)


def _places(spans: Sequence[slice], size: int, filler: int) -> Tensor:
    places = torch.cat([torch.arange(span.start, span.stop) for span in spans])
    return torch.cat((places, places.new_full((size - len(places),), filler)))


class TiledAttention(torch.autograd.Function):
    """Scores, softmax and sums of every group; gradients of keys and values are summed in float32.

    The softmax takes and gives the compute dtype and is evaluated in float32 between.
    """

    @staticmethod
    def forward(
        ctx: Any, query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor, groups: list[Group], scale: float
    ) -> Tensor:
        heads = key_TKd.shape[1]
        elements = heads * sum(group.bias.numel() for group in groups)
        keep = any(ctx.needs_input_grad) and elements <= KEPT_PROBABILITIES
        output_THd = _with_spare(query_THd)
        kept = []
        for group in groups:
            probability = _probabilities(query_THd, key_TKd, group, scale)
            _put(output_THd, group, heads, torch.bmm(probability, _keys(value_TKd, group)))
            kept += [probability] if keep else []
        ctx.save_for_backward(query_THd, key_TKd, value_TKd, *kept)
        ctx.groups, ctx.scale = groups, scale
        return output_THd[:-1]

    @staticmethod
    def backward(ctx: Any, grad_THd: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_THd, key_TKd, value_TKd, *kept = ctx.saved_tensors
        heads, wide = key_TKd.shape[1], torch.promote_types(key_TKd.dtype, torch.float32)
        query_grad = _with_spare(query_THd)
        key_grad, value_grad = (torch.zeros_like(key_TKd, dtype=wide) for _ in range(2))
        grad_THd = torch.cat((grad_THd, torch.zeros_like(grad_THd[:1])))  # what a padded query gets
        none = grad_THd.new_zeros(1, 1, 1)
        for number, group in enumerate(ctx.groups):
            probability = kept[number] if kept else _probabilities(query_THd, key_TKd, group, ctx.scale)
            out_grad = _queries(grad_THd, group, heads)
            _add(value_grad, group, torch.bmm(probability.mT, out_grad))
            grad = torch.bmm(out_grad, _keys(value_TKd, group).mT)
            grad = torch._softmax_backward_data(grad, probability, -1, probability.dtype)
            # The scale goes into the products: a pass over them is shorter than one over the scores.
            key = _keys(key_TKd, group)
            _put(query_grad, group, heads, torch.baddbmm(none, grad, key, beta=0, alpha=ctx.scale))
            query = _queries(query_THd, group, heads)
            _add(key_grad, group, torch.baddbmm(none, grad.mT, query, beta=0, alpha=ctx.scale))
        return query_grad[:-1], key_grad.to(key_TKd.dtype), value_grad.to(value_TKd.dtype), None, None


def _probabilities(query_THd: Tensor, key_TKd: Tensor, group: Group, scale: float) -> Tensor:
    """[B * K, n * g, m]"""
    heads = key_TKd.shape[1]
    query, key = _queries(query_THd, group, heads), _keys(key_TKd, group)
    bias = group.bias[:, None].expand(-1, heads, -1, -1).flatten(0, 1)
    return torch.baddbmm(bias, query, key.mT, alpha=scale).softmax(dim=-1)


def _with_spare(x_THd: Tensor) -> Tensor:
    """Room for [T + 1, H, d]: the last place takes what padded queries give."""
    return x_THd.new_empty(x_THd.shape[0] + 1, *x_THd.shape[1:])


def _queries(x_THd: Tensor, group: Group, heads: int) -> Tensor:
    """[B * K, n * g, d], in memory of its own."""
    tiles, queries, _ = group.shape
    if group.query is None:
        taken = x_THd[group.tiles[0].query_span]
    else:
        taken = x_THd.index_select(0, group.query.clamp_max(x_THd.shape[0] - 1))
    folded = taken.view(tiles, queries, heads, -1, x_THd.shape[-1]).transpose(1, 2)
    return folded.reshape(tiles * heads, -1, x_THd.shape[-1])


def _put(x_THd: Tensor, group: Group, heads: int, rows: Tensor) -> None:
    """Write [B * K, n * g, d] at the queries' places."""
    tiles, queries, _ = group.shape
    shaped = rows.view(tiles, heads, queries, -1, rows.shape[-1]).transpose(1, 2)
    if group.query is None:
        x_THd[group.tiles[0].query_span].view(shaped.shape).copy_(shaped)
    else:
        x_THd.index_copy_(0, group.query, shaped.reshape(tiles * queries, *x_THd.shape[1:]))


def _keys(x_TKd: Tensor, group: Group) -> Tensor:
    """[B * K, m, d], in memory of its own."""
    tiles, _, keys = group.shape
    heads, dim = x_TKd.shape[1:]
    if group.key is not None:
        taken = x_TKd.index_select(0, group.key).view(tiles, keys, heads, dim)
        return taken.transpose(1, 2).reshape(tiles * heads, keys, dim)
    gathered, filled = x_TKd.new_empty(heads, keys, dim), 0
    for span in group.tiles[0].key_spans:
        first, filled = filled, filled + span.stop - span.start
        gathered[:, first:filled] = x_TKd[span].transpose(0, 1)
    gathered[:, filled:] = 0
    return gathered


def _add(total_TKd: Tensor, group: Group, grad: Tensor) -> None:
    """Add [B * K, m, d] at the keys' places; a parent's key has one place in many tiles."""
    tiles, _, keys = group.shape
    heads, dim = total_TKd.shape[1:]
    shaped = grad.view(tiles, heads, keys, dim).transpose(1, 2)
    if group.key is not None:
        rows = shaped.reshape(tiles * keys, heads, dim).to(total_TKd.dtype)
        total_TKd.index_add_(0, group.key, rows)
        return
    filled = 0
    for span in group.tiles[0].key_spans:
        first, filled = filled, filled + span.stop - span.start
        total_TKd[span] += shaped[0, first:filled]
