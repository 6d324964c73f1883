"""Rows to preference pairs: recognised by their columns."""

from __future__ import annotations

import re
from typing import Any

from groundup.config.schema import DataSettings
from groundup.data.ledger import Ledger
from groundup.data.messages import (
    BadRow,
    answer_messages,
    check_turns,
    checked,
    instruction_messages,
    parse_messages,
    prompt_messages,
    system_messages,
)
from groundup.data.rows import UnknownLayout, check_columns, raw_rows, read_all
from groundup.data.types import Message, Origin, Pair

LAYOUTS = (
    "prompt, chosen, rejected | chosen, rejected, both beginning with the prompt (messages, or Human: Assistant: text)"
    " | conversations, chosen, rejected (LLaMA-Factory) | instruction, [input], chosen, rejected"
    " | question, chosen, rejected"
)
COLUMNS = frozenset(
    ["prompt", "chosen", "rejected", "conversations", "instruction", "input", "history", "question", "system"]
)
HUMAN_ASSISTANT = re.compile(r"(?:^|\n\n)(Human|Assistant):")
"""HH-RLHF's turns."""


def read_pairs(spec: DataSettings, ledger: Ledger) -> list[Pair]:
    """All usable pairs in file order. Raises UserError for unusable files, and too many bad rows."""
    check_columns(spec, COLUMNS)
    return read_all(spec, ledger, parse_pair, LAYOUTS)


def holds_pairs(spec: DataSettings) -> bool:
    """Whether the rows are pairs, by the columns of the first one that can be read."""
    for row in raw_rows(spec):
        if isinstance(row.value, dict):
            return {"chosen", "rejected"} <= row.value.keys() | set(spec.columns)
    return False


def parse_pair(row: dict[str, Any], origin: Origin) -> Pair:
    """One row. Raises BadRow."""
    if not {"chosen", "rejected"} <= row.keys():
        raise UnknownLayout(list(row))
    prompt = _prompt(row)
    chosen, rejected = (_side(row[column], column) for column in ("chosen", "rejected"))
    if prompt is None:
        common = _common(chosen, rejected)
        prompt, chosen, rejected = (
            [*system_messages(row), *chosen[:common]],
            chosen[common:],
            rejected[common:],
        )
    else:
        chosen, rejected = (_without_prompt(side, prompt) for side in (chosen, rejected))
    _check(prompt, chosen, rejected)
    return Pair(tuple(prompt), tuple(chosen), tuple(rejected), origin)


def _prompt(row: dict[str, Any]) -> list[Message] | None:
    """The prompt that the row states; None where it has to be found as what both sides begin with."""
    if "conversations" in row:
        messages = parse_messages(row["conversations"], "conversations")
        return messages if messages and messages[0].role == "system" else system_messages(row) + messages
    if "instruction" in row:
        return instruction_messages(row)
    for column in ("prompt", "question"):
        if column in row:
            return system_messages(row) + prompt_messages(row[column], column)
    if any(
        isinstance(row[column], str) and not HUMAN_ASSISTANT.match(row[column].lstrip())
        for column in ("chosen", "rejected")
    ):
        raise UnknownLayout(
            list(row), "add a column with the prompt, or name it: columns: {prompt: its name}"
        )
    return None


def _side(value: Any, column: str) -> list[Message]:
    """What stands in `chosen` or `rejected`: an answer, or a whole conversation."""
    if not isinstance(value, str) or not HUMAN_ASSISTANT.match(checked(value, column).lstrip()):
        return answer_messages(value, column)
    pieces = HUMAN_ASSISTANT.split(value.strip())
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[who], said.strip()) for who, said in zip(pieces[1::2], pieces[2::2])]


def _common(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages two conversations share at their beginning."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    return same


def _without_prompt(side: list[Message], prompt: list[Message]) -> list[Message]:
    """The side without the prompt, which some files repeat there (without its system message, at times)."""
    if not side or side[0].role == "assistant":
        return side
    for repeated in (prompt, [m for m in prompt if m.role != "system"]):
        if side[: len(repeated)] == repeated:
            return side[len(repeated) :]
    raise BadRow("the prompts of chosen and rejected differ")


def _check(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> None:
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
