"""Messages out of the many ways in which files write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from groundup.data.types import BadRow, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def string(row: dict[str, Any], column: str, *, default: str | None = None) -> str:
    """A column's text. Missing or null is `default`; without one, a BadRow."""
    value = row.get(column)
    if value is None:
        if default is None:
            raise BadRow(f"no column {column!r}" if column not in row else f"{column!r} is null")
        return default
    return checked(value, column)


def checked(value: Any, name: str) -> str:
    """`value` if it is a string that can be written as UTF-8; else BadRow."""
    if not isinstance(value, str):
        raise BadRow(f"{name!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{name!r} holds half of a surrogate pair") from None
    return value


def parse_messages(value: Any, column: str) -> list[Message]:
    """A list of OpenAI messages (role, content) or ShareGPT turns (from, value); empty system messages are left out."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # a table's cell
        value = _from_json(value, repr(column))
    if not isinstance(value, list):
        raise BadRow(f"{column!r} is not a list of messages")
    messages = [parse_message(item, column) for item in value]
    return [m for m in messages if m.role != "system" or m.content.strip()]


def parse_message(value: Any, column: str) -> Message:
    """One message object."""
    if not isinstance(value, dict):
        raise BadRow(f"{column!r} holds a message that is no object")
    written_role = checked(value.get("role", value.get("from")), "role")
    role = ROLES.get(written_role.strip().lower())
    if role is None:
        raise BadRow(f"unknown role {written_role[:40]!r}")
    if role == "assistant" and value.get("loss_weight", value.get("weight", 1)) != 1:
        raise BadRow("an assistant's message has a weight other than 1")
    content, reasoning, calls = _content(value.get("content", value.get("value")), column)
    if written_role.strip().lower() == "function_call":
        content, calls = "", _tool_calls(content)
    calls += _tool_calls(value.get("tool_calls") or [])
    if value.get("reasoning_content") is not None:
        reasoning = checked(value["reasoning_content"], "reasoning_content")
    return Message(role, content, reasoning or None, tuple(calls))


def _content(value: Any, column: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and tool calls of a message's content: a string, or a list of typed parts."""
    if value is None:
        return "", "", []
    if not isinstance(value, list):
        return checked(value, column), "", []
    said: dict[str, list[str]] = {"text": [], "reasoning": []}
    calls: list[dict[str, Any]] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text", part.get("value")) if isinstance(part, dict) else None
        if kind == "tool_call":
            calls += _tool_calls(text)
        elif kind in said:
            said[kind].append(checked(text, column))
        else:
            raise BadRow(f"{column!r} holds something that is not text")
    return "".join(said["text"]), "".join(said["reasoning"]), calls


def _tool_calls(value: Any) -> list[dict[str, Any]]:
    """OpenAI's form, arguments as an object, out of JSON text, one call or several."""
    value = _from_json(value, "a tool call")
    calls = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, dict) else {}
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("a tool call has no name")
        arguments = _from_json(function.get("arguments") or {}, "a tool call's arguments")
        function = {"name": checked(function["name"], "name"), "arguments": arguments}
        calls.append({"type": "function", "function": function})
    return calls


def parse_tools(value: Any) -> tuple[dict[str, Any], ...] | None:
    """A row's tools in OpenAI's form; None where it has none."""
    value = _from_json(value, "'tools'") if value else []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow("'tools' is not a list of objects")
    return (
        tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)
        or None
    )


def _from_json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow(f"{name} is not valid JSON") from None


def instruction_messages(row: dict[str, Any]) -> list[Message]:
    """Alpaca's instruction and input as one question, after `system` and the older turns of `history`."""
    question = string(row, "instruction")
    if (given := string(row, "input", default="")).strip():
        question = f"{question}\n{given}" if question.strip() else given
    messages = system_messages(row)
    history = row.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(turn, list) and len(turn) == 2 for turn in history
    ):
        raise BadRow("'history' is not a list of [question, answer]")
    for asked, answered in history:
        messages += [
            Message("user", checked(asked, "history")),
            Message("assistant", checked(answered, "history")),
        ]
    return [*messages, Message("user", question)]


def system_messages(row: dict[str, Any]) -> list[Message]:
    """The row's `system` column as messages: one, or none."""
    text = string(row, "system", default="")
    return [Message("system", text)] if text.strip() else []


def prompt_messages(value: Any, column: str) -> list[Message]:
    """A prompt: a string is a user's message."""
    if isinstance(value, str):
        return [Message("user", checked(value, column))]
    return parse_messages(value, column)


def answer_messages(value: Any, column: str) -> list[Message]:
    """An answer: a string or one message object is one turn."""
    if isinstance(value, str):
        return [Message("assistant", checked(value, column))]
    return [parse_message(value, column)] if isinstance(value, dict) else parse_messages(value, column)


def check_turns(messages: Sequence[Message]) -> None:
    """BadRow where somebody says nothing."""
    for message in messages:
        if message.content.strip() or message.tool_calls or message.role == "tool":
            continue
        raise BadRow("empty answer" if message.role == "assistant" else "empty question")


def check_conversation(messages: Sequence[Message], scored_from: int = 0) -> None:
    """BadRow where there is nothing to learn."""
    check_turns(messages)
    if not any(m.role == "assistant" for m in messages[scored_from:]):
        raise BadRow("no answer")
    if messages[-1].role != "assistant":
        raise BadRow("the last message is not an assistant's")


def is_true(value: Any, column: str) -> bool:
    """A label: true or false, as JSON, numbers or a table's cells write it."""
    written = str(value).strip().lower()
    if written in ("true", "1", "1.0"):
        return True
    if written in ("false", "0", "0.0"):
        return False
    raise BadRow(f"{column!r} is neither true nor false")
