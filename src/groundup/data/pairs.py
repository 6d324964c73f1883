"""Rows to preference pairs, one parser a layout. A pair never has an empty prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.data.messages import (
    answer_messages,
    check_turns,
    checked,
    instruction_messages,
    parse_messages,
    parse_tools,
    system_messages,
)
from groundup.data.textchat import HH_TURN, begins_with_human, prompt_turns, turns
from groundup.data.types import BadRow, Message, Origin, Pair

Row = Mapping[str, Any]


def looks_like_ultrafeedback(row: Row) -> bool:
    """A text prompt, and sides that are conversations which begin with it."""
    prompt = row["prompt"]
    return isinstance(prompt, str) and all(
        isinstance(row[side], list) and len(row[side]) > 1 for side in ("chosen", "rejected")
    )


def looks_like_hh(row: Row) -> bool:
    return all(begins_with_human(row[side]) for side in ("chosen", "rejected"))


def looks_implicit(row: Row) -> bool:
    """Two conversations; or two texts with a common beginning and no other text in the row, which may be the prompt."""
    chosen, rejected = row["chosen"], row["rejected"]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return isinstance(chosen, list) and isinstance(rejected, list)
    others = [name for name, value in row.items() if isinstance(value, str) and len(value) > len(chosen) // 4]
    return set(others) <= {"chosen", "rejected", "system"} and bool(common_text(chosen, rejected).strip())


def common_text(one: str, other: str) -> str:
    """What both begin with, up to the end of a word, as TRL's `extract_prompt` has it."""
    pairs = enumerate(zip(one, other))
    same = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    if same and same < len(one) and same < len(other) and one[same - 1] == " ":
        same -= 1
    elif same and not (same == len(one) or one[same].isspace()):
        same = max(one.rfind(" ", 0, same), one.rfind("\n", 0, same), 0)
    return one[:same]


def parse_prompted(row: dict[str, Any], origin: Origin) -> Pair:
    return _prompted(row, origin, system_messages(row) + prompt_turns(row.get("prompt"), "prompt"))


def parse_question(row: dict[str, Any], origin: Origin) -> Pair:
    return _prompted(row, origin, system_messages(row) + prompt_turns(row.get("question"), "question"))


def parse_alpaca(row: dict[str, Any], origin: Origin) -> Pair:
    return _prompted(row, origin, instruction_messages(row))


def parse_sharegpt(row: dict[str, Any], origin: Origin) -> Pair:
    """LLaMA-Factory's: `conversations` up to the answer, and two answers."""
    messages = parse_messages(row.get("conversations"), "conversations")
    leading = [] if messages and messages[0].role == "system" else system_messages(row)
    return _prompted(row, origin, leading + messages)


def parse_messages_pair(row: dict[str, Any], origin: Origin) -> Pair:
    """LLaMA-Factory's v1: two whole conversations."""
    chosen, rejected = (parse_messages(row.get(f"{side}_messages"), f"{side}_messages") for side in SIDES)
    return _common_beginning(row, origin, chosen, rejected)


def parse_hh(row: dict[str, Any], origin: Origin) -> Pair:
    """Both sides are whole conversations in HH-RLHF's marks."""
    chosen, rejected = (turns(checked(row.get(side), side), HH_TURN) for side in SIDES)
    return _common_beginning(row, origin, chosen, rejected)


def parse_implicit(row: dict[str, Any], origin: Origin) -> Pair:
    """Both sides begin with the prompt, as messages or as one text."""
    if any(isinstance(row.get(side), str) for side in SIDES):
        one, other = (checked(row.get(side), side) for side in SIDES)
        if one == other:
            raise BadRow("chosen equals rejected")
        prompt = common_text(one, other)
        if not prompt.strip():
            raise BadRow("chosen and rejected have no common beginning, so there is no prompt")
        sides = [[Message("assistant", text[len(prompt) :].strip())] for text in (one, other)]
        return _pair(row, origin, [*system_messages(row), Message("user", prompt.strip())], *sides)
    chosen, rejected = (_side(row.get(side), side) for side in SIDES)
    return _common_beginning(row, origin, chosen, rejected)


SIDES = ("chosen", "rejected")


def _prompted(row: dict[str, Any], origin: Origin, prompt: list[Message]) -> Pair:
    """A pair whose prompt the row states; some files repeat it in both sides."""
    sides = (_side(row.get(side), side) for side in SIDES)
    return _pair(row, origin, prompt, *(_without_prompt(side, prompt) for side in sides))


def _common_beginning(
    row: dict[str, Any], origin: Origin, chosen: list[Message], rejected: list[Message]
) -> Pair:
    """A pair whose prompt is the messages that both sides begin with."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    leading = [] if chosen and chosen[0].role == "system" else system_messages(row)
    return _pair(row, origin, [*leading, *chosen[:same]], chosen[same:], rejected[same:])


def _side(value: Any, column: str) -> list[Message]:
    """What stands in `chosen` or `rejected`: an answer, or a whole conversation."""
    if value is None:
        raise BadRow("empty answer")
    return (
        turns(checked(value, column), HH_TURN) if begins_with_human(value) else answer_messages(value, column)
    )


def _without_prompt(side: list[Message], prompt: list[Message]) -> list[Message]:
    """The side without the prompt, which some files repeat there (without its system message, at times)."""
    if not side or side[0].role == "assistant":
        return side
    for repeated in (prompt, [m for m in prompt if m.role != "system"]):
        if side[: len(repeated)] == repeated:
            return side[len(repeated) :]
    raise BadRow("the prompts of chosen and rejected differ")


def _pair(
    row: dict[str, Any],
    origin: Origin,
    prompt: list[Message],
    chosen: list[Message],
    rejected: list[Message],
) -> Pair:
    if chosen == rejected:
        raise BadRow("chosen equals rejected")
    if not chosen or not rejected:
        raise BadRow("empty answer")
    if (
        not any(m.role != "system" for m in prompt)
        or chosen[0].role != "assistant"
        or rejected[0].role != "assistant"
    ):
        raise BadRow("the prompts of chosen and rejected differ")
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise BadRow("the last message is not an assistant's")
    for messages in (prompt, chosen, rejected):
        check_turns(messages)
    sides = (tuple(prompt), tuple(chosen), tuple(rejected))
    return Pair(*sides, origin, parse_tools(row.get("tools")), _margin(row.get("margin")))


def _margin(value: Any) -> float | None:
    """By how much chosen is better than rejected; a table's cell may write it as text."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow("'margin' is not a number")
    return number
