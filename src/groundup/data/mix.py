"""Weighted mixtures: how often each document is used, so that the sources' bytes stand in the ratio of their weights.

A weight is a share of bytes, the nearest to tokens that can be known before there is a tokenizer. The mixture is as
large as it can be while no source is used more often than allowed: one source then is used up, and of each other the
rest is left out, documents that the seed chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """times_D: how often each of D documents is used, 0 for one that is left out."""

    times_D: Any
    sources: tuple[dict[str, Any], ...]
    """For each source: weight, bytes that it has, bytes and share in the mixture, times, documents left out."""


def mix(source_D: Any, bytes_D: Any, draw_D: Any, weights: Sequence[float], repeat: int) -> Mixture:
    """
    Args:
        source_D, bytes_D: which source each document belongs to, and its size; 0 for one that is not there any more.
        draw_D: a number each, as good as random: within a source, documents are taken in its order.
        weights: of the sources, in any unit.
        repeat: how often a document may be used at most.
    """
    times_D = np.zeros(len(source_D), np.int64)
    has = np.bincount(source_D, bytes_D, len(weights))
    wanted = np.asarray(weights, float) / sum(weights)
    total = min(repeat * has / wanted)
    for number in range(len(weights)):
        places = np.flatnonzero(source_D == number)
        if not has[number]:
            continue
        rounds, rest = divmod(total * wanted[number], has[number])
        if rest > has[number] - 0.5:  # the division's rounding
            rounds, rest = rounds + 1, 0.0
        order = places[np.lexsort((places, draw_D[places]))]
        before = np.concatenate(([0], np.cumsum(bytes_D[order])[:-1]))
        times_D[order] = int(rounds) + (
            before + bytes_D[order] / 2 <= rest
        )  # a document counts where its middle is
    used = np.bincount(source_D, bytes_D * times_D, len(weights))
    times_D[bytes_D == 0] = 0
    left = np.bincount(source_D, (times_D == 0) & (bytes_D > 0), len(weights))
    return Mixture(
        times_D,
        tuple(
            {
                "weight": float(weights[i]),
                "available_bytes": int(has[i]),
                "bytes": int(used[i]),
                "share": float(used[i] / max(used.sum(), 1)),
                "times": float(used[i] / has[i]) if has[i] else 0.0,
                "left_out": int(left[i]),
            }
            for i in range(len(weights))
        ),
    )
