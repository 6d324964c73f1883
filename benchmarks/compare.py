"""From what the processes measured to rows of figures, and whether both sides did the same work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from material import all_tokens
from measure import WARM_UP_STEPS
from table import Row, failed, median, memory, speed
from work import Work

from groundup.batch import Record

PEAK = "GB, peak"
ABOVE = "GB, peak above start"
"""The start: libraries and rows are in memory, the model is not."""
SAME_LOSS = 0.02
"""How far first-step numbers may lie apart, relative to ours: both sides may compute in bfloat16."""


@dataclass(frozen=True)
class Measured:
    """Everything about one work."""

    work: Work
    tokens: list[int]
    """Real tokens of each step, those that warm up first."""
    records: list[Record]
    ours: list[dict[str, Any]]
    others: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "about": self.work.about,
            "tokens": self.tokens,
            "ours": self.ours,
            "peers": self.others,
        }

    @property
    def counted(self) -> int:
        """Real tokens of the measured steps."""
        return sum(self.tokens[WARM_UP_STEPS:])


def rows_of(measured: Measured) -> list[Row]:
    """Speed, memory and share of the floor; for DPO with the reference and with a cached one."""
    ours = [result for result in measured.ours if "error" not in result]
    name = measured.work.name
    if not ours:
        return [failed(name, "Groundup", "", measured.ours[0]["error"])]
    if name.startswith("scaling"):
        return []
    dpo = measured.work.kind == "dpo"
    first = [measured.counted / seconds_of(result, reference=dpo) for result in ours]
    rows = []
    for peer, result in measured.others.items():
        label = label_of(peer)
        if "error" in result:
            rows.append(failed(name, label, result.get("settings", ""), result["error"]))
        elif peer == "floor":
            rows += floor_rows(measured, ours, result)
        else:
            rows += peer_rows(measured, label, ours, first, result)
    rows += [failed(name, "Groundup, again", "", one["error"]) for one in measured.ours if "error" in one]
    if not measured.others:
        rows.append(Row(name, "none", ours[0]["settings"], "tokens/s", round(median(first), 1)))
    return rows


def seconds_of(result: dict[str, Any], reference: bool) -> float:
    """Seconds of the measured steps."""
    train = sum(result["seconds"][WARM_UP_STEPS:])
    return train + (sum(result["reference_seconds"][WARM_UP_STEPS:]) if reference else 0.0)


def peer_rows(
    measured: Measured,
    label: str,
    ours: Sequence[dict[str, Any]],
    first: Sequence[float],
    result: dict[str, Any],
) -> list[Row]:
    name, counted = measured.work.name, measured.counted
    note = checked(measured, ours[0], result)
    steps = sum(result["seconds"][WARM_UP_STEPS:])
    share = counted / sum(measured.tokens)
    reference = result.get("reference_total_seconds", 0.0) * share
    settings = result["settings"]
    if measured.work.kind == "dpo":
        cached = [counted / seconds_of(one, reference=False) for one in ours]
        rows = [
            speed(f"{name}, first epoch", label, settings, first, counted / (steps + reference), note),
            speed(f"{name}, second epoch", label, settings, cached, counted / steps),
        ]
    else:
        rows = [speed(name, label, settings, first, counted / steps, note)]
    peaks = [max(one[key] for one in ours) for key in ("peak_bytes", "base_bytes")]
    above = max(one["peak_bytes"] - one["base_bytes"] for one in ours)
    theirs = result["peak_bytes"] - result["base_bytes"]
    return [
        *rows,
        memory(name, label, "", PEAK, peaks[0], result["peak_bytes"]),
        memory(name, label, "", ABOVE, above, theirs),
    ]


def floor_rows(measured: Measured, ours: Sequence[dict[str, Any]], floor: dict[str, Any]) -> list[Row]:
    """Our share of what the matrix products alone would reach."""
    name, counted, dpo = measured.work.name, measured.counted, measured.work.kind == "dpo"
    settings = f"{ours[0]['dtype']}, the weights' products on the very shapes, best of a few"
    rows = []
    for label, extra in (("matrix products alone", False), ("with attention's products", True)):
        train = sum(floor["train"]) + (sum(floor["attention"]) if extra else 0.0)
        reference = sum(floor["reference"]) + (sum(floor["attention_reference"]) if extra else 0.0)
        if dpo:
            first = [counted / seconds_of(one, reference=True) for one in ours]
            rows.append(speed(f"{name}, first epoch", label, settings, first, counted / (train + reference)))
        cached = [counted / seconds_of(one, reference=False) for one in ours]
        work = f"{name}, second epoch" if dpo else name
        rows.append(speed(work, label, settings, cached, counted / train))
    return rows


def label_of(peer: str) -> str:
    side, _, how = peer.partition("-")
    return {
        "trl": f"TRL {version('trl')} {how}",
        "trainer": f"transformers.Trainer {version('transformers')} {how}",
        "plain": "plain PyTorch loop",
        "floor": "matrix products alone",
    }[side]


def checked(measured: Measured, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Whether both saw the same tokens, and the first step's numbers; in words, with both numbers."""
    expected = all_tokens(measured.records)
    said = []
    for side, result in (("ours", ours), ("the peer", theirs)):
        seen = (result["tokens_seen"], result["scored_seen"])
        if seen != expected:
            said.append(f"DIFFERENT WORK: {side} saw {seen[0]} tokens and scored {seen[1]}, not {expected}")
    name = "logps/chosen" if measured.work.kind == "dpo" else "loss"
    mine, other = (result["history"][0][name] for result in (ours, theirs))
    verdict = "within" if abs(mine - other) <= SAME_LOSS * abs(mine) else "NOT WITHIN"
    said.append(f"first step's {name} {mine:.4f} ours, {other:.4f} theirs, {verdict} {SAME_LOSS:.0%}")
    losses = [[f"{line['loss']:.4f}" for line in result["history"]] for result in (ours, theirs)]
    said.append(f"losses {' '.join(losses[0])} ours, {' '.join(losses[1])} theirs")
    if "places" in theirs:
        said.append(f"the peer's batches had {theirs['places']} places for {theirs['tokens_seen']} tokens")
    return "; ".join(said)


def scaling_rows(done: Sequence[Measured]) -> list[Row]:
    """Each point's speed beside its series' first point, and its memory beside the plan's."""
    rows: list[Row] = []
    first: dict[str, float] = {}
    for measured in done:
        match = re.fullmatch(r"scaling-(\w+)-\w+", measured.work.name)
        if match is None or "error" in measured.ours[0]:
            continue
        ours = measured.ours[0]
        rate = measured.counted / seconds_of(ours, reference=False)
        start = first.setdefault(match[1], rate)
        if match[1] != "model":
            rows.append(speed(measured.work.name, f"the series' first point ({match[1]})", "", [rate], start))
        else:
            rows.append(Row(measured.work.name, "none", ours["settings"], "tokens/s", round(rate, 1)))
        above = ours["training_peak_bytes"] - ours["base_bytes"]
        rows.append(memory(measured.work.name, "planned memory", "", ABOVE, above, ours["planned_bytes"]))
    return rows
