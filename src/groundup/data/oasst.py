"""OpenAssistant's trees (arXiv 2304.07327): of all branches, the conversation of the answers ranked best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.data.messages import check_conversation, checked, is_true, parse_message
from groundup.data.types import BadRow, Conversation, Message, Origin, Unwanted

READY = "ready_for_export"
"""The state of a tree that is whole: people have answered, reviewed and ranked it. Others wait, or were given up."""
UNRANKED = math.inf


def looks_like_tree(row: Mapping[str, Any]) -> bool:
    prompt = row["prompt"]
    return isinstance(prompt, dict) and "text" in prompt


def looks_like_root(row: Mapping[str, Any]) -> bool:
    return row.get("replies") is not None


def parse_tree(row: dict[str, Any], origin: Origin) -> Conversation:
    """A row {message_tree_id, prompt: {text, role, replies}}."""
    if reason := why_unwanted(row):
        raise Unwanted(reason)
    return parse_root(row["prompt"], origin)


def parse_root(row: dict[str, Any], origin: Origin) -> Conversation:
    """A row that is a tree's first message, with its replies, and theirs, inside."""
    if not isinstance(row, dict):
        raise BadRow("'prompt' is no message")
    if row.get("parent_id") is not None:
        raise BadRow("a message without the one that it answers")
    if reason := why_unwanted(row):
        raise Unwanted(reason)
    messages: list[Message] = []
    node: dict[str, Any] | None = row
    while node is not None:
        said = {"role": node.get("role"), "content": checked(node.get("text"), "text")}
        messages.append(parse_message(said, "text"))
        node = _best(node.get("replies"))
    if messages[-1].role == "user":  # nobody answered the last question
        messages.pop()
    check_conversation(messages)
    return Conversation(tuple(messages), origin)


def _best(replies: Any) -> dict[str, Any] | None:
    """The reply of the best rank, 0; unranked ones come after, in the file's order. Unwanted ones do not count."""
    if replies is None:
        return None
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRow("'replies' is not a list of messages")
    return min((reply for reply in replies if not why_unwanted(reply)), key=rank_of, default=None)


def why_unwanted(message: Mapping[str, Any]) -> str:
    """Why a message, and all that answers it, is left out; empty where it is not. Raises BadRow for what is no flag."""
    if (state := message.get("tree_state")) and state != READY:
        return f"the tree's state is {str(state)[:40]}"
    if _flag(message, "deleted", False):
        return "deleted, or an answer to what was deleted"
    if not _flag(message, "review_result", True):
        return "refused by its reviewers, or an answer to what was refused"
    return ""


def _flag(message: Mapping[str, Any], column: str, default: bool) -> bool:
    value = message.get(column)
    return default if value is None or value == "" else is_true(value, column)


def rank_of(message: Mapping[str, Any]) -> float:
    """0 is the best; UNRANKED where nobody ranked it. A table's cell is text."""
    rank = message.get("rank")
    try:
        value = float(rank) if isinstance(rank, int | float | str) else UNRANKED
    except (ValueError, OverflowError):
        return UNRANKED
    return UNRANKED if math.isnan(value) else value
