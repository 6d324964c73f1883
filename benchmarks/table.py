"""Rows of figures, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure of ours beside one of a peer's; a ratio over 1 means that ours is better."""

    work: str
    peer: str
    settings: str
    unit: str
    ours_value: float | None = None
    peer_value: float | None = None
    ratio: float | None = None
    ours_spread: tuple[float, float] | None = None
    """Lowest and highest of the repeated measurements, before and after the peers."""
    note: str = ""
    error: str = ""


def speed(work: str, peer: str, settings: str, ours: Sequence[float], theirs: float, note: str = "") -> Row:
    """Tokens a second: ours is the mean rate of each of its processes, and their median counts."""
    middle = median(ours)
    spread = (round(min(ours), 1), round(max(ours), 1))
    return Row(
        *(work, peer, settings, "tokens/s", round(middle, 1), round(theirs, 1), round(middle / theirs, 3)),
        ours_spread=spread,
        note=note,
    )


def memory(work: str, peer: str, settings: str, unit: str, ours: float, theirs: float) -> Row:
    return Row(
        work, peer, settings, unit, round(ours / 1e9, 3), round(theirs / 1e9, 3), round(theirs / ours, 3)
    )


def failed(work: str, peer: str, settings: str, error: str, unit: str = "tokens/s") -> Row:
    return Row(work, peer, settings, unit, error=error)


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def printed(rows: Sequence[Row]) -> str:
    """A plain table, settings of each peer below it."""
    head = ("work", "peer", "unit", "ours", "peer's", "ratio", "ours, spread")
    lines = [head, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = dict.fromkeys(f"{row.work} · {row.peer}: {row.settings}" for row in rows if row.settings)
    notes |= dict.fromkeys(f"{row.work} · {row.peer}: {row.note}" for row in rows if row.note)
    return "\n".join([*(line.rstrip() for line in text), "", "Settings and checks", *notes])


def cells(row: Row) -> tuple[str, ...]:
    if row.error:
        return (row.work, row.peer, row.unit, "", "", "", f"failed: {row.error}")
    spread = f"{row.ours_spread[0]:,.1f} to {row.ours_spread[1]:,.1f}" if row.ours_spread else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (row.work, row.peer, row.unit, number(row.ours_value), number(row.peer_value), ratio, spread)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def as_json(rows: Sequence[Row], environment: dict[str, Any], works: dict[str, Any]) -> str:
    """The last line of standard output: one JSON object without line breaks."""
    plain = [{key: value for key, value in asdict(row).items() if value not in ("", None)} for row in rows]
    return json.dumps({"name": "train", "rows": plain, "environment": environment, "works": works})
