"""OpenAssistant's trees (arXiv 2304.07327): of all branches, the conversation of the answers ranked best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.data.messages import check_conversation, checked, parse_message
from groundup.data.types import BadRow, Conversation, Message, Origin


def looks_like_tree(row: Mapping[str, Any]) -> bool:
    prompt = row["prompt"]
    return isinstance(prompt, dict) and "text" in prompt


def parse_tree(row: dict[str, Any], origin: Origin) -> Conversation:
    """A row {message_tree_id, prompt: {text, role, replies}}."""
    return parse_root(row["prompt"], origin)


def parse_root(row: dict[str, Any], origin: Origin) -> Conversation:
    """A row that is a tree's first message, with its replies, and theirs, inside."""
    if not isinstance(row, dict):
        raise BadRow("'prompt' is no message")
    if row.get("parent_id") is not None:
        raise BadRow("a message without the one that it answers")
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
    """The reply of the best rank, 0; unranked ones come after, in the file's order. Deleted ones do not count."""
    if replies is None:
        return None
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRow("'replies' is not a list of messages")
    wanted = [reply for reply in replies if not reply.get("deleted")]
    return min(wanted, key=_rank, default=None)


def _rank(reply: dict[str, Any]) -> float:
    rank = reply.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")
