"""Metrics before and after, models compared, rows accounted for, answers side by side: as rows of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from groundup.report import wording
from groundup.report.reading import StageRecord

LEDGER_WORDS = {
    "kept": "kept",
    "filtered": "filtered out",
    "deduplicated": "copies of another row",
    "quarantined": "unusable, in quarantine.jsonl",
}


@dataclass(frozen=True)
class Cell:
    """`verdict` says whether the change is better, worse, or neither ("")."""

    text: str
    change: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[Cell]
    name: str = ""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[Row]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """One fate of rows. `kind` is the ledger's key."""

    kind: str
    label: str
    count: str
    percent: float
    reasons: list[tuple[str, str]]


@dataclass(frozen=True)
class RowsView:
    total: str
    parts: list[Part]
    balanced: bool


@dataclass(frozen=True)
class Answer:
    who: str
    text: str


@dataclass(frozen=True)
class Generation:
    prompt: str
    answers: list[Answer]


def before_and_after(stage: StageRecord) -> Table | None:
    """Held-out metrics of a training stage."""
    before, after = stage.held_out("before"), stage.held_out("after")
    compared = "Rewards compare with the model that the stage started from, so before it they are zero."
    rows = [
        Row(
            wording.metric(name).heading,
            [
                Cell(wording.value(name, before.get(name))),
                Cell(wording.value(name, after.get(name))),
                _changed(name, before.get(name), after.get(name)),
            ],
            name,
        )
        for name in _ordered([before, after])
    ]
    return (
        Table(["before", "after", "change"], rows, compared if "rewards/margins" in after else "")
        if rows
        else None
    )


def _changed(name: str, before: float | None, after: float | None) -> Cell:
    text, verdict = wording.change(name, before, after)
    return Cell(text, verdict=verdict)


def models_compared(models: list[dict[str, Any]]) -> Table | None:
    """A row a model, a column a metric; changes are against the first model."""
    metrics = [
        {name.removeprefix("eval_"): number for name, number in model["metrics"].items()} for model in models
    ]
    names = _ordered(metrics)
    if not names:
        return None
    rows = [
        Row(
            model["name"],
            [
                Cell(
                    wording.value(name, values.get(name)),
                    *(wording.change(name, metrics[0].get(name), values.get(name)) if index else ("", "")),
                )
                for name in names
            ],
        )
        for index, (model, values) in enumerate(zip(models, metrics, strict=True))
    ]
    return Table([wording.metric(name).heading for name in names], rows)


def rows_accounted(ledger: dict[str, Any] | None) -> RowsView | None:
    """Every row that came in, by what became of it."""
    if not ledger:
        return None
    total = ledger["in"]
    parts = []
    for key, words in LEDGER_WORDS.items():
        fate = ledger.get(key, 0)
        reasons = sorted(fate.items(), key=lambda item: -item[1]) if isinstance(fate, dict) else []
        number = sum(n for _, n in reasons) if isinstance(fate, dict) else fate
        if number or key == "kept":
            shown = [(reason, wording.count(n)) for reason, n in reasons]
            parts.append(
                (number, Part(key, words, wording.count(number), 100 * number / max(total, 1), shown))
            )
    balanced = total == sum(number for number, _ in parts)
    return RowsView(wording.count(total), [part for _, part in parts], balanced)


def samples_of(stage: StageRecord) -> list[Generation]:
    """A training stage's answers to held-out prompts; for a base model, how it goes on with a text."""
    generations = []
    for sample in stage.result.get("samples") or []:
        shown = {"reference": "reference", "before": f"before {stage.name}", "after": f"after {stage.name}"}
        if stage.kind == "pretrain":  # random weights write nothing worth reading
            del shown["before"]
        answers = [Answer(who, sample[key]) for key, who in shown.items() if sample.get(key) is not None]
        generations.append(Generation(sample["prompt"], answers))
    return generations


def completions_of(lines: list[dict[str, Any]]) -> list[Generation]:
    """What a policy answered while it was trained: by prompt, each answer with its step and reward."""
    found: dict[tuple[int, str], list[Answer]] = {}
    for line in lines:
        reward = "unknown" if line["reward"] is None else wording.digits(line["reward"])
        end = "" if line["finished"] else ", cut off"
        found.setdefault((line["step"], line["prompt"]), []).append(
            Answer(f"step {line['step']}, reward {reward}{end}", line["completion"])
        )
    return [Generation(prompt, answers) for (_, prompt), answers in found.items()]


def side_by_side(generations: list[dict[str, Any]]) -> list[Generation]:
    """An evaluation's prompts, each with the reference and every model's answer; equal answers stand once."""
    found = []
    for item in generations:
        models_by_text: dict[str, list[str]] = {}
        for who, text in item["answers"].items():
            models_by_text.setdefault(text, []).append(who)
        reference = [Answer("reference", item["reference"])] if item.get("reference") else []
        answers = [Answer(", ".join(models), text) for text, models in models_by_text.items()]
        found.append(Generation(item["prompt"], reference + answers))
    return found


def _ordered(metrics: Iterable[dict[str, Any]]) -> list[str]:
    """Every name once: those that people know first, in the order in which they are explained."""
    names = dict.fromkeys(name for values in metrics for name in values)
    known = [name for name in wording.METRICS if name in names]
    return known + [name for name in names if name not in wording.METRICS]
