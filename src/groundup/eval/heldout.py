"""Numbers on rows that were never trained on, by the same batches and losses as training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from groundup import console
from groundup.batch import Batch, Record, pack_step, segment_tokens
from groundup.objective import Objective, means, sequence_logp

RECORDS_AT_ONCE = 64


def packed_rows(records: Sequence[Record], row_tokens: int, layout: str) -> Iterator[Batch]:
    """All records once, in order, as rows of `row_tokens`, or of the longest record where that is longer."""
    for start in range(0, len(records), RECORDS_AT_ONCE):
        some = records[start : start + RECORDS_AT_ONCE]
        longest_tokens = max(segment_tokens(record, layout) for record in some)
        yield from pack_step(some, max(row_tokens, longest_tokens), layout)


def evaluate_records(
    model: nn.Module,
    records: Sequence[Record],
    objective: Objective,
    *,
    row_tokens: int,
    layout: str,
    device: str,
    title: str,
) -> dict[str, float]:
    """The objective's metrics over all records, named `eval_…` as TRL names them."""
    was_training = model.training
    model.eval()
    collected = []
    with torch.no_grad(), console.progress(title, total=len(records), unit="row") as bar:
        for row in packed_rows(records, row_tokens, layout):
            row = row.to(device)
            collected.append(objective.loss(model(row, objective.needs), row)[1])
            bar.advance(len(row.sequences_G))
    model.train(was_training)
    return {f"eval_{name}": value for name, value in means(collected).items()}


def record_logps(
    model: nn.Module, rows: Iterable[Batch], *, device: str, total: int, title: str
) -> dict[int, tuple[float, ...]]:
    """`logps_by_record`, with a line of progress for people."""
    with console.progress(title, total=total, unit="row") as bar:
        return logps_by_record(model, rows, device, lambda row: bar.advance(len(row.sequences_G)))


@torch.no_grad()
def logps_by_record(
    model: nn.Module,
    rows: Iterable[Batch],
    device: str,
    on_row: Callable[[Batch], object] = lambda row: None,
) -> dict[int, tuple[float, ...]]:
    """Summed log-probability of each sequence by record index, without gradient, on the very rows given."""
    found: dict[int, tuple[float, ...]] = {}
    was_training = model.training
    model.eval()
    for row in rows:
        row = row.to(device)
        logp_Q = sequence_logp(model(row, frozenset({"logp"})), row)
        first = 0
        for count in row.sequences_G.tolist():
            # A step that crosses the end of an epoch may hold a record twice.
            found.setdefault(int(row.record_Q[first]), tuple(logp_Q[first : first + count].tolist()))
            first += count
        on_row(row)
    model.train(was_training)
    return found


def bits_per_byte(nats_per_token: float, tokens: int, total_bytes: int) -> float:
    """Bits that the model needs for one byte of the text: comparable between tokenizers and with gzip."""
    return nats_per_token * tokens / math.log(2) / total_bytes
