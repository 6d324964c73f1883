"""One finished stage: what it did in a sentence, its numbers, its curves, its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groundup.console import duration
from groundup.report import tables, wording
from groundup.report.curves import Plot, draw_curves
from groundup.report.reading import StageRecord

TITLES = {
    "clean": "Text",
    "tokenizer": "Tokenizer",
    "shards": "Tokens",
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "dpo": "Preference optimisation",
    "grpo": "Reinforcement by groups of answers (GRPO)",
    "ppo": "Reinforcement with a value function (PPO)",
    "merge": "Merge",
    "eval": "Evaluation",
}


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    sentence: str
    facts: list[tuple[str, str]]
    table: tables.Table | None
    rows: tables.RowsView | None
    plots: list[Plot]
    samples: list[tables.Generation]
    samples_title: str
    samples_open: bool
    """A base model's texts stand nowhere else; answers stand side by side in the evaluation, once there is one."""
    completions: list[tables.Generation]
    """What a policy answered while it was trained, with its rewards."""
    dropped: list[dict[str, str]]
    plan: list[tuple[str, str]]
    settings: list[tuple[str, str]]


def section(stage: StageRecord, evaluated: bool) -> Section:
    """What the report says of one finished stage, of whatever kind. `evaluated`: an evaluation shows answers too."""
    from_text = stage.kind == "pretrain"
    return Section(
        name=stage.name,
        title=TITLES.get(stage.kind, stage.kind),
        sentence=_sentence(stage),
        facts=_facts(stage.result),
        table=tables.before_and_after(stage),
        rows=tables.rows_accounted(stage.result.get("rows")),
        plots=draw_curves(stage),
        samples=tables.samples_of(stage),
        samples_title="How it goes on with a text" if from_text else "Answers before and after",
        samples_open=from_text or not evaluated,
        completions=tables.completions_of(stage.result.get("completions") or []),
        dropped=stage.result.get("dropped") or [],
        plan=pairs(stage.result.get("plan") or {}),
        settings=pairs({key: item for key, item in stage.settings.items() if key != "kind"}),
    )


def pairs(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    found: list[tuple[str, str]] = []
    for key, item in values.items():
        if isinstance(item, dict) and item:
            found += pairs(item, f"{prefix}{key}.")
        elif item not in (None, "", [], {}):
            found.append((prefix + str(key), _text(str(key), item)))
    return found


def _text(key: str, item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int):
        return wording.size(item) if key.endswith("_bytes") else wording.count(item)
    if isinstance(item, float):
        return f"{item:g}"
    return ", ".join(map(str, item)) if isinstance(item, list) else str(item)


def _sentence(stage: StageRecord) -> str:
    """What the stage did; empty for a kind that is not known here."""
    result = stage.result
    if stage.kind == "clean":
        documents, size = result["documents"], result["bytes"]
        return (
            f"{wording.count(documents['train'])} documents ({wording.size(size['train'])}) to train on,"
            f" {wording.count(documents['heldout'])} ({wording.size(size['heldout'])}) held out."
        )
    if stage.kind == "tokenizer":
        return (
            f"{wording.count(result['vocab_size'])} tokens; one stands for"
            f" {result['bytes_per_token']:.2f} bytes of held-out text on average."
        )
    if stage.kind == "shards":
        train, heldout = result["train"], result["heldout"]
        return f"{wording.count(train['tokens'])} tokens to train on, {wording.count(heldout['tokens'])} held out."
    if stage.kind == "merge":
        return (
            "The adapter was folded into the base model, a plain Hugging Face folder;"
            f" logits differ by at most {result['max_logit_difference']:.1e}."
        )
    if stage.kind == "eval":
        return (
            f"{len(result['models'])} models on the same held-out rows; the numbers and answers stand above."
        )
    return ""


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Steps, time and speed of a training stage; a tokenizer beside others; what a mixture took of each source."""
    if "mix" in result:
        return [(name, _mixed(numbers)) for name, numbers in result["mix"].items()]
    if "fertility" in result:
        return [(name, _fertility(numbers)) for name, numbers in result["fertility"].items()]
    if "seconds" not in result:
        return []
    facts = [
        ("steps", wording.count(result["steps"])),
        ("time", duration(result["seconds"])),
        ("tokens", wording.count(result["tokens"])),
        ("tokens/s", wording.count(result["tokens_per_second"])),
    ]
    if result.get("skipped_steps"):
        facts.append(("skipped steps", wording.count(result["skipped_steps"])))
    return facts


def _mixed(numbers: dict[str, Any]) -> str:
    """`60.1% of the mixture: 12.0 MB of 40.1 MB, 0.30 times, 412 documents left out`"""
    said = f"{100 * numbers['share']:.1f}% of the mixture: {wording.size(numbers['bytes'])}"
    said += f" of {wording.size(numbers['available_bytes'])}, {numbers['times']:.2f} times"
    left = numbers["left_out"]
    return said + (f", {wording.count(left)} documents left out" if left else "")


def _fertility(numbers: dict[str, Any]) -> str:
    words = numbers.get("tokens_per_word")
    said = f"{numbers['bytes_per_token']:.2f} bytes a token"
    return said + (f", {words:.2f} tokens a word" if words else "")
