"""The nouns of this room: what a row of a file becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Where a row came from. `line` counts from 1; in a format without lines it is the row's number.

    byte: where the row begins in the file, unpacked; None in a format that has no such place.
    """

    path: str
    line: int
    byte: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Document:
    """One text of a corpus."""

    text: str
    origin: Origin


@dataclass(frozen=True)
class Message:
    """One turn. `role` is system, user, assistant or tool, as OpenAI and chat templates name them."""

    role: str
    content: str
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What a chat template is given."""
        values: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning_content is not None:
            values["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            values["tool_calls"] = list(self.tool_calls)
        return values


@dataclass(frozen=True)
class Conversation:
    """Messages that end with an assistant's. Answers before message number `scored_from` are context, never learned."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[dict[str, Any], ...] | None = None
    scored_from: int = 0
    label: bool | None = None
    """Whether the answer is a good one, where the row says so: TRL's unpaired preference."""

    @property
    def key(self) -> str:
        """The prompt: all that is said before the first learned answer. Rows of one prompt stand on one side."""
        first = next(
            i for i, m in enumerate(self.messages) if m.role == "assistant" and i >= self.scored_from
        )
        return said(self.messages[:first]) or said(self.messages)

    @property
    def opening(self) -> str:
        return opening(self.messages) or self.key


@dataclass(frozen=True)
class Pair:
    """A prompt and two continuations, the first one preferred; each starts and ends with an assistant's turn."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    origin: Origin
    tools: tuple[dict[str, Any], ...] | None = None
    margin: float | None = None
    """By how much the chosen one is better, where the row says so."""

    @property
    def key(self) -> str:
        """The prompt: a training pair that has a held-out one's is never trained on."""
        return said(self.prompt)

    @property
    def opening(self) -> str:
        return opening(self.prompt) or self.key


@dataclass(frozen=True)
class Prompt:
    """A question without an answer."""

    messages: tuple[Message, ...]
    origin: Origin


class BadRow(ValueError):
    """Why a row goes to quarantine; short, and the same words for the same defect, because reasons are counted."""


class Unwanted(Exception):
    """Why a whole row is filtered."""


def opening(messages: tuple[Message, ...]) -> str:
    """The question that a conversation begins with: what is said before the first answer; empty without one."""
    first = next((i for i, m in enumerate(messages) if m.role == "assistant"), len(messages))
    return said(messages[:first])


def said(messages: tuple[Message, ...]) -> str:
    """The messages as one text; a system prompt, which many rows share, does not count."""
    return "\n".join(f"{m.role}: {m.content}" for m in messages if m.role != "system")
