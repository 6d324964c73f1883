"""Segment attention on a CPU: queries are cut into tiles, and each tile, or batch of tiles, is three matrix products.

Heads come first in memory, and the query heads of a key-value head lie side by side as rows, so nothing is repeated.
A tile of some size works on views of the row. Small tiles of like shape are padded to one shape and share their
calls. Which tiles go together is decided once a row of the batch, for all layers.

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

TILE_QUERIES = 128
"""Longer segments are cut, since a causal rectangle wastes half of its area."""
ALONE = 128 * 128
"""Tiles of so many scores are not padded to share a call: the products outweigh the calls."""
MAX_PADDING = 1.15
"""Smaller ones of neighbouring shapes merge while the padded area is at most this much of the true one."""
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


Place = tuple[slice, ...] | Tensor
"""Tokens of the row: spans of it, or the index of each."""


@dataclass(frozen=True)
class Group:
    """Tiles (B) that share their matrix products, padded to one shape of n queries and m keys."""

    shape: tuple[int, int, int]
    """(B, n, m)"""
    query: Place
    """Padding points behind the row's last token, at zeros."""
    key: Place
    """Padding points at the tile's first key, which no true query takes for it."""
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
        if groups and true_area < ALONE:
            merged = [*groups[-1], tile]
            padded = len(merged) * max(t.shape[0] for t in merged) * max(t.shape[1] for t in merged)
            if padded <= MAX_PADDING * (area + true_area):
                groups[-1], area = merged, area + true_area
                continue
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


def _group(
    tiles: list[Tile], window: int | None, heads_per_key: int, dtype: torch.dtype, tokens: int
) -> Group:
    queries, keys = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    query: Place = (tiles[0].query_span,)
    key: Place = tiles[0].key_spans
    if len(tiles) > 1:
        query = torch.cat([_padded([tile.query_span], queries, tokens) for tile in tiles])
        key = torch.cat([_padded(tile.key_spans, keys, tile.key_spans[0].start) for tile in tiles])
    # A padded query would look beyond the tile's keys: let it look where the last true query does.
    last_B11 = torch.tensor([tile.last_query - 1 for tile in tiles])[:, None, None]
    query_B1 = torch.tensor([tile.first_query for tile in tiles])[:, None, None]
    key_B1 = torch.tensor([tile.first_key for tile in tiles])[:, None, None]
    query_Bn1 = torch.minimum(query_B1 + torch.arange(queries)[None, :, None], last_B11)
    visible_Bnm = visible(query_Bn1, key_B1 + torch.arange(keys)[None, None, :], window)
    bias_Bnm = torch.zeros(visible_Bnm.shape, dtype=dtype).masked_fill_(~visible_Bnm, -math.inf)
    return Group((len(tiles), queries, keys), query, key, bias_Bnm.repeat_interleave(heads_per_key, 1))


def visible(query_place: Tensor, key_place: Tensor, window: int | None) -> Tensor:
    """Which keys a query sees: none behind itself, and with a window only the last of them, itself included."""
    seen = key_place <= query_place
    return seen if window is None else seen & (key_place > query_place - window)


def _padded(spans: Sequence[slice], size: int, filler: int) -> Tensor:
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
        heads, elements = key_TKd.shape[1], key_TKd.shape[1] * sum(group.bias.numel() for group in groups)
        keep = any(ctx.needs_input_grad) and elements <= KEPT_PROBABILITIES
        query_KTgd, key_KTd, value_KTd = (_heads_first(x, heads) for x in (query_THd, key_TKd, value_TKd))
        output_KTgd = torch.empty_like(query_KTgd)
        kept = []
        for group in groups:
            probability = _probabilities(query_KTgd, key_KTd, group, scale)
            _put(output_KTgd, group, torch.bmm(probability, _take(value_KTd, group.key, group)))
            kept += [probability] if keep else []
        ctx.save_for_backward(query_KTgd, key_KTd, value_KTd, *kept)
        ctx.groups, ctx.scale = groups, scale
        return _tokens_first(output_KTgd)

    @staticmethod
    def backward(ctx: Any, grad_THd: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_KTgd, key_KTd, value_KTd, *kept = ctx.saved_tensors
        wide = torch.promote_types(key_KTd.dtype, torch.float32)
        grad_KTgd = _heads_first(grad_THd, key_KTd.shape[0])
        query_grad = torch.empty_like(query_KTgd)
        key_grad, value_grad = (torch.zeros_like(key_KTd, dtype=wide) for _ in range(2))
        for number, group in enumerate(ctx.groups):
            probability = kept[number] if kept else _probabilities(query_KTgd, key_KTd, group, ctx.scale)
            out_grad = _take(grad_KTgd, group.query, group)
            _add(value_grad, group, torch.bmm(probability.mT, out_grad))
            grad = torch.bmm(out_grad, _take(value_KTd, group.key, group).mT)
            grad = torch._softmax_backward_data(grad, probability, -1, probability.dtype).mul_(ctx.scale)
            _put(query_grad, group, torch.bmm(grad, _take(key_KTd, group.key, group)))
            _add(key_grad, group, torch.bmm(grad.mT, _take(query_KTgd, group.query, group)))
        dtype = key_KTd.dtype
        key_grad, value_grad = _tokens_first(key_grad.to(dtype)), _tokens_first(value_grad.to(dtype))
        return _tokens_first(query_grad), key_grad, value_grad, None, None


def _probabilities(query_KTgd: Tensor, key_KTd: Tensor, group: Group, scale: float) -> Tensor:
    """[K * B, n * g, m]"""
    query, key = _take(query_KTgd, group.query, group), _take(key_KTd, group.key, group)
    bias = group.bias.repeat(key_KTd.shape[0], 1, 1)
    return torch.baddbmm(bias, query, key.mT, alpha=scale).softmax(dim=-1)


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """[T, H, d] to [K, T + 1, ..., d], with zeros behind the last token: what padding reads and writes."""
    grouped = x.unflatten(1, (heads, -1)).transpose(0, 1)
    out = x.new_empty(heads, x.shape[0] + 1, *grouped.shape[2:])
    out[:, :-1].copy_(grouped)
    out[:, -1].zero_()
    return out


def _tokens_first(x: Tensor) -> Tensor:
    """[K, T + 1, g, d] to [T, H, d]"""
    return x[:, :-1].transpose(0, 1).flatten(1, 2)


def _take(x: Tensor, place: Place, group: Group) -> Tensor:
    """[K * B, rows, d] of a tensor [K, T + 1, ..., d]; a view where one span of the row is meant."""
    if isinstance(place, Tensor):
        taken = x.index_select(1, place)
    elif len(place) == 1:
        taken = x[:, place[0]]
    else:
        taken = torch.cat([x[:, span] for span in place], dim=1)
    return taken.reshape(x.shape[0] * group.shape[0], -1, x.shape[-1])


def _put(x_KTgd: Tensor, group: Group, rows: Tensor) -> None:
    """Write [K * B, n * g, d] at the queries' places."""
    shaped = rows.view(x_KTgd.shape[0], -1, *x_KTgd.shape[2:])
    if isinstance(group.query, Tensor):
        x_KTgd.index_copy_(1, group.query, shaped)
    else:
        x_KTgd[:, group.query[0]] = shaped


def _add(total_KTd: Tensor, group: Group, grad: Tensor) -> None:
    """Add [K * B, m, d] at the keys' places; a parent's key has one place in many tiles."""
    shaped = grad.view(total_KTd.shape[0], -1, *total_KTd.shape[2:])
    if isinstance(group.key, Tensor):
        total_KTd.index_add_(1, group.key, shaped.to(total_KTd.dtype))
        return
    first = 0
    for span in group.key:
        count = span.stop - span.start
        total_KTd[:, span] += shaped[:, first : first + count]
        first += count
