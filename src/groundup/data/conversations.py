"""Rows to conversations: recognised by their columns."""

from __future__ import annotations

from typing import Any

from groundup.config.schema import DataSettings
from groundup.data.ledger import Ledger
from groundup.data.messages import (
    BadRow,
    answer_messages,
    check_turns,
    instruction_messages,
    parse_messages,
    parse_tools,
    prompt_messages,
    string,
    system_messages,
)
from groundup.data.rows import UnknownLayout, Unwanted, check_columns, read_all
from groundup.data.types import Conversation, Message, Origin

LAYOUTS = (
    "messages | conversations (ShareGPT) | prompt, completion | question, answer"
    " | instruction, [input], output (Alpaca)"
)
COLUMNS = frozenset(
    ["messages", "conversations", "prompt", "completion", "instruction", "input", "output", "history"]
    + ["question", "answer", "system", "tools", "label"]
)


def read_conversations(spec: DataSettings, ledger: Ledger) -> list[Conversation]:
    """All usable conversations in file order. Raises UserError for unusable files, and too many bad rows."""
    check_columns(spec, COLUMNS)
    return read_all(spec, ledger, parse_conversation, LAYOUTS)


def parse_conversation(row: dict[str, Any], origin: Origin) -> Conversation:
    """One row. Raises BadRow, or Unwanted."""
    messages, scored_from = _messages(row)
    check_turns(messages)
    if not any(m.role == "assistant" for m in messages[scored_from:]):
        raise BadRow("no answer")
    if messages[-1].role != "assistant":
        raise BadRow("the last message is not an assistant's")
    if row.get("label") is False:  # TRL's unpaired preference: this one is what not to say
        raise Unwanted("label is false")
    return Conversation(tuple(messages), origin, parse_tools(row.get("tools")), scored_from)


def _messages(row: dict[str, Any]) -> tuple[list[Message], int]:
    """The row's messages, and from which on answers are learned."""
    preference = {"chosen", "rejected"} <= row.keys()
    column = "messages" if "messages" in row else "conversations"
    if column == "messages" or (column in row and not preference):
        messages = parse_messages(row[column], column)
        leading = [] if messages and messages[0].role == "system" else system_messages(row)
        return leading + messages, 0
    if {"prompt", "completion"} <= row.keys():
        prompt = system_messages(row) + prompt_messages(row["prompt"], "prompt")
        return prompt + answer_messages(row["completion"], "completion"), len(prompt)
    if {"instruction", "output"} <= row.keys():
        prompt = instruction_messages(row)
        return [*prompt, Message("assistant", string(row, "output"))], 0
    if {"question", "answer"} <= row.keys():
        prompt = [*system_messages(row), Message("user", string(row, "question"))]
        return [*prompt, Message("assistant", string(row, "answer"))], 0
    hint = "these are preference pairs: train on them in a dpo stage" if preference else ""
    raise UnknownLayout(list(row), hint)
