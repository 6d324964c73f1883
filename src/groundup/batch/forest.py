"""A record's chains to a tree of segments: what they share is computed once.

A chain of n tokens puts n - 1 of them into a row, because its last token is only ever predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LAYOUTS = ("shared", "packed", "single")
"""shared: a common prefix is one segment. packed: every chain whole. single: every chain whole, one record a row."""


@dataclass(frozen=True)
class Chain:
    """One whole sequence: int32 tokens, and which of them the loss has as a target. The first is never one."""

    token: np.ndarray
    scored: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.token) == len(self.scored) >= 2
        assert not self.scored[0] and self.scored.any()


@dataclass(frozen=True)
class Record:
    """What a row of data becomes: one chain for a document or a conversation, chosen and rejected for a pair."""

    index: int
    chains: tuple[Chain, ...]
    sequence: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Columns with one number a chain, such as `ref_logp`."""
    group: dict[str, float] = field(default_factory=dict)
    """Columns with one number for the whole record, such as `margin`."""
    token_share: tuple[float, ...] = ()
    """What a scored token of each chain counts in `weight_N`, against those of other chains; empty: one each."""


@dataclass(frozen=True)
class Segment:
    """Tokens of one segment; `parent` counts within the record, -1 is a root."""

    token: np.ndarray
    first_position: int
    parent: int


@dataclass(frozen=True)
class Tree:
    """A record laid out: `source` counts tokens from the start of the record's first segment."""

    segments: tuple[Segment, ...]
    source: tuple[np.ndarray, ...]
    target: tuple[np.ndarray, ...]

    @property
    def tokens(self) -> int:
        return sum(len(segment.token) for segment in self.segments)


def shared_prefix_tokens(chains: tuple[Chain, ...]) -> int:
    """Tokens that all chains begin with, ended at the first scored one.

    A common token of the *answers* belongs to each sequence by itself: it is scored once for each.
    """
    limit = min(int(np.argmax(chain.scored)) for chain in chains)
    first = chains[0].token[:limit]
    for chain in chains[1:]:
        different = np.flatnonzero(first != chain.token[: len(first)])
        if len(different):
            first = first[: different[0]]
    return len(first)


def segment_tokens(record: Record, layout: str) -> int:
    """Tokens that the record takes in a row."""
    whole = sum(len(chain.token) - 1 for chain in record.chains)
    if layout != "shared" or len(record.chains) == 1:
        return whole
    return whole - (len(record.chains) - 1) * shared_prefix_tokens(record.chains)


def plant(record: Record, layout: str) -> Tree:
    """The record's segments, and its (source, target) reads chain by chain."""
    shared = shared_prefix_tokens(record.chains) if layout == "shared" and len(record.chains) > 1 else 0
    segments: list[Segment] = []
    if shared:
        segments.append(Segment(record.chains[0].token[:shared], 0, -1))
    source, target = [], []
    start = shared
    for chain in record.chains:
        rest = chain.token[shared:-1]
        scored = np.flatnonzero(chain.scored)
        # Token t is predicted from t - 1; the first token behind the fork is predicted from the fork itself.
        before = scored - 1
        source.append(np.where(before < shared, before, before - shared + start))
        target.append(chain.token[scored])
        if len(rest):
            segments.append(Segment(rest, shared, 0 if shared else -1))
            start += len(rest)
    return Tree(tuple(segments), tuple(source), tuple(target))
