"""Rows to conversations, one parser a layout."""

from __future__ import annotations

from typing import Any

from groundup.data.messages import (
    answer_messages,
    check_conversation,
    instruction_messages,
    is_true,
    parse_messages,
    parse_tools,
    string,
    system_messages,
)
from groundup.data.textchat import prompt_turns
from groundup.data.types import Conversation, Message, Origin

LABELS = ("label", "kto_tag")
"""Columns that say whether an answer is a good one."""


def parse_messages_row(row: dict[str, Any], origin: Origin) -> Conversation:
    """`messages` in OpenAI's words."""
    return _turns(row, origin, "messages")


def parse_sharegpt(row: dict[str, Any], origin: Origin) -> Conversation:
    """`conversations` in ShareGPT's words."""
    return _turns(row, origin, "conversations")


def parse_completion(row: dict[str, Any], origin: Origin) -> Conversation:
    """TRL's prompt and completion: only the completion is learned."""
    prompt = system_messages(row) + prompt_turns(row.get("prompt"), "prompt")
    return _conversation(
        row, origin, prompt + answer_messages(row.get("completion"), "completion"), len(prompt)
    )


def parse_alpaca(row: dict[str, Any], origin: Origin) -> Conversation:
    return _conversation(
        row, origin, [*instruction_messages(row), Message("assistant", string(row, "output"))]
    )


def parse_question(row: dict[str, Any], origin: Origin) -> Conversation:
    """GSM8K's question and answer."""
    prompt = [*system_messages(row), Message("user", string(row, "question"))]
    return _conversation(row, origin, [*prompt, Message("assistant", string(row, "answer"))])


def _turns(row: dict[str, Any], origin: Origin, column: str) -> Conversation:
    messages = parse_messages(row.get(column), column)
    leading = [] if messages and messages[0].role == "system" else system_messages(row)
    return _conversation(row, origin, leading + messages)


def _conversation(
    row: dict[str, Any], origin: Origin, messages: list[Message], scored_from: int = 0
) -> Conversation:
    check_conversation(messages, scored_from)
    tools = parse_tools(row.get("tools"))
    return Conversation(tuple(messages), origin, tools, scored_from, _label(row))


def _label(row: dict[str, Any]) -> bool | None:
    """TRL's `label`, or LLaMA-Factory's `kto_tag`."""
    return next((is_true(row[name], name) for name in LABELS if row.get(name) is not None), None)
