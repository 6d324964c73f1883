"""Trees of segments to rows without padding; a row is one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from groundup.batch.forest import Record, Tree, plant, segment_tokens
from groundup.batch.types import Batch
from groundup.errors import UserError


def pack_step(records: Sequence[Record], row_tokens: int, layout: str = "shared") -> list[Batch]:
    """One optimizer step's records as rows of at most `row_tokens` tokens, with the step's weights.

    As few rows as first fit by decreasing size needs, filled evenly where that is possible: the same records always
    give the same rows. Raises UserError for a record that no row can hold.
    """
    sizes = [segment_tokens(record, layout) for record in records]
    if max(sizes) > row_tokens:
        raise UserError(
            f"a record of {max(sizes)} tokens does not fit a row of {row_tokens}",
            why="a record is never cut",
            fix="lower max_length",
        )
    bins = [[index] for index in range(len(records))] if layout == "single" else _bins(sizes, row_tokens)
    rows = [[records[i] for i in sorted(members)] for members in bins]
    tokens = sum(float(share @ reads) for share, reads in map(_shares, records))
    return [
        build_row(row, layout, token_weight=1.0 / tokens, group_weight=1.0 / len(records)) for row in rows
    ]


def _shares(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """What a scored token of each chain counts, and how many there are."""
    reads = np.array([int(chain.scored.sum()) for chain in record.chains])
    return np.array(record.token_share or np.ones(len(reads))), reads


def deal(rows: Sequence[Batch], rank: int, world_size: int) -> list[Batch]:
    """The rows of a step that this process computes. Together the processes have each row once, as one alone would.

    Weights are the whole step's, so gradients are summed over processes and never divided.
    """
    return list(rows[rank::world_size])


def _bins(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Indices of sizes in bins that hold at most `most` each."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    bins: list[list[int]] = []
    filled: list[int] = []
    for index in order:
        place = next((b for b, used in enumerate(filled) if used + sizes[index] <= most), len(bins))
        if place == len(bins):
            bins.append([])
            filled.append(0)
        bins[place].append(index)
        filled[place] += sizes[index]
    # The next largest into the emptiest: rows of like length, instead of full ones and a short one.
    even: list[list[int]] = [[] for _ in bins]
    used = [0] * len(bins)
    for index in order:
        place = used.index(min(used))
        even[place].append(index)
        used[place] += sizes[index]
    return even if max(used) <= most else bins


def build_row(records: Sequence[Record], layout: str, *, token_weight: float, group_weight: float) -> Batch:
    """A row of whole records; every read gets `token_weight` times its chain's share, every group `group_weight`."""
    trees = [plant(record, layout) for record in records]
    offset_by_record = np.cumsum([0] + [tree.tokens for tree in trees])
    reads = [len(target) for tree in trees for target in tree.target]
    start, length, parent, token, position = _segments(trees)
    return Batch(
        token_T=token,
        position_T=position,
        start_S=start,
        length_S=length,
        parent_S=parent,
        source_N=_long(
            np.concatenate([s + at for tree, at in zip(trees, offset_by_record) for s in tree.source])
        ),
        target_N=_long(np.concatenate([target for tree in trees for target in tree.target])),
        reads_Q=_long(np.array(reads)),
        sequences_G=_long(np.array([len(tree.target) for tree in trees])),
        weight_N=_float(np.concatenate([np.repeat(*_shares(record)) for record in records]) * token_weight),
        weight_G=torch.full((len(trees),), group_weight, dtype=torch.float32),
        record_Q=_long(np.array([r.index for r in records for _ in r.chains])),
        sequence_tokens=sum(len(chain.token) for record in records for chain in record.chains),
        sequence={
            name: _float([value for record in records for value in record.sequence[name]])
            for name in records[0].sequence
        },
        group={name: _float([record.group[name] for record in records]) for name in records[0].group},
    )


def text_row(texts: Sequence[Sequence[int]]) -> Batch:
    """A row of whole texts, each read at its last token: how a text goes on. Nothing is predicted or weighed."""
    length = np.array([len(text) for text in texts])
    end = np.cumsum(length)
    count = len(texts)
    ones, none = torch.ones(count, dtype=torch.int64), torch.zeros(count, dtype=torch.float32)
    return Batch(
        token_T=_long(np.concatenate([np.asarray(text) for text in texts])),
        position_T=_long(np.concatenate([np.arange(tokens) for tokens in length])),
        start_S=_long(end - length),
        length_S=_long(length),
        parent_S=-ones,
        source_N=_long(end - 1),
        target_N=-ones,
        reads_Q=ones,
        sequences_G=ones,
        weight_N=none,
        weight_G=none,
        record_Q=torch.arange(count),
        sequence_tokens=int(end[-1]),
    )


def _segments(trees: Sequence[Tree]) -> tuple[torch.Tensor, ...]:
    """start_S, length_S, parent_S, token_T, position_T of the trees laid one behind the other."""
    length: list[int] = []
    parent: list[int] = []
    token, position = [], []
    for tree in trees:
        first = len(length)
        for segment in tree.segments:
            parent.append(-1 if segment.parent < 0 else first + segment.parent)
            length.append(len(segment.token))
            token.append(segment.token)
            position.append(np.arange(segment.first_position, segment.first_position + len(segment.token)))
    start = np.cumsum([0, *length[:-1]])
    return (
        _long(start),
        _long(np.array(length)),
        _long(np.array(parent)),
        _long(np.concatenate(token)),
        _long(np.concatenate(position)),
    )


def _float(values: Sequence[float] | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _long(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
