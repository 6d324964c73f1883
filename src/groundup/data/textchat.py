"""Conversations written out as one text: HH-RLHF's, Guanaco's and Llama 2's marks between the turns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from groundup.data.messages import check_conversation, checked, prompt_messages, string, system_messages
from groundup.data.types import BadRow, Conversation, Message, Origin

HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
"""Anthropic's HH-RLHF (arXiv 2204.05862): every turn after a blank line."""
GUANACO_TURN = re.compile(r"### ?(Human|Assistant|System):")
"""openassistant-guanaco (QLoRA, arXiv 2305.14314)."""
LLAMA2_TURN = re.compile(
    r"(?:<s>)?\s*\[INST\](.*?)\[/INST\](.*?)(?=</s>|(?:<s>)?\s*\[INST\]|\Z)(?:</s>)?", re.DOTALL
)
LLAMA2_SYSTEM = re.compile(r"\A\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
"""Llama 2's chat format (arXiv 2307.09288, and the reference code's B_INST, B_SYS)."""
ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}


def begins_with_human(text: Any) -> bool:
    """Whether a value is a text in HH-RLHF's marks."""
    return isinstance(text, str) and bool(re.match(r"\s*(Human|Assistant):", text))


def looks_like_hh(row: Mapping[str, Any]) -> bool:
    text = row["text"]
    return begins_with_human(text) and "\n\nAssistant:" in text


def looks_like_guanaco(row: Mapping[str, Any]) -> bool:
    text = row["text"]
    return (
        isinstance(text, str)
        and bool(GUANACO_TURN.match(text.lstrip()))
        and bool(re.search(r"### ?Assistant:", text))
    )


def looks_like_llama2(row: Mapping[str, Any]) -> bool:
    text = row["text"]
    return isinstance(text, str) and bool(re.match(r"\s*(<s>)?\s*\[INST\]", text)) and "[/INST]" in text


def turns(text: str, marks: re.Pattern[str]) -> list[Message]:
    """The messages between the marks; what stands before the first one is dropped only if it is white space."""
    pieces = marks.split(text.strip())
    if pieces[0].strip():
        raise BadRow("text before the first turn")
    return [Message(ROLES[who], said.strip()) for who, said in zip(pieces[1::2], pieces[2::2])]


def prompt_turns(value: Any, column: str) -> list[Message]:
    """A prompt: messages, a text that is one question, or a text in HH-RLHF's marks, with or without an open answer."""
    if not begins_with_human(value):
        return prompt_messages(value, column)
    messages = turns(checked(value, column), HH_TURN)
    return messages[:-1] if messages[-1] == Message("assistant", "") else messages


def parse_hh(row: dict[str, Any], origin: Origin) -> Conversation:
    return _conversation(row, origin, turns(string(row, "text"), HH_TURN))


def parse_guanaco(row: dict[str, Any], origin: Origin) -> Conversation:
    messages = turns(string(row, "text"), GUANACO_TURN)
    if messages and messages[-1].role == "user":  # the published rows end after an answer, or with a question
        messages.pop()
    return _conversation(row, origin, messages)


def parse_llama2(row: dict[str, Any], origin: Origin) -> Conversation:
    text = checked(row["text"], "text")
    messages: list[Message] = []
    end = 0
    for turn in LLAMA2_TURN.finditer(text):
        if text[end : turn.start()].strip():
            raise BadRow("text between the turns")
        end = turn.end()
        asked, answered = turn.groups()
        if not messages and (system := LLAMA2_SYSTEM.match(asked)):
            messages.append(Message("system", system[1].strip()))
            asked = asked[system.end() :]
        messages += [Message("user", asked.strip()), Message("assistant", answered.strip())]
    if text[end:].strip():
        raise BadRow("text after the last turn")
    return _conversation(row, origin, messages)


def _conversation(row: dict[str, Any], origin: Origin, messages: list[Message]) -> Conversation:
    leading = [] if messages and messages[0].role == "system" else system_messages(row)
    messages = [m for m in leading + messages if m.role != "system" or m.content]
    check_conversation(messages)
    return Conversation(tuple(messages), origin)
