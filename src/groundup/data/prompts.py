"""Rows to prompts for a policy to answer; their other columns are kept for reward functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groundup.config.schema import DataSettings
from groundup.data.documents import parse_text
from groundup.data.layouts import BY_NAME, candidates
from groundup.data.ledger import Ledger
from groundup.data.messages import check_turns, instruction_messages, parse_messages, string, system_messages
from groundup.data.raw import RawRow
from groundup.data.read import raw_rows
from groundup.data.recognise import renamed
from groundup.data.textchat import prompt_turns
from groundup.data.types import BadRow, Message, Origin, Pair, opening, said
from groundup.errors import UserError

COLUMNS = ("prompt", "messages", "conversations", "question", "instruction")
"""Where a row's prompt may stand; the first of them that it has counts."""
TAKEN = frozenset({"prompt", "prompts", "completion", "completions", "completion_ids"})
"""Arguments that a reward function has by itself."""


@dataclass(frozen=True)
class Task:
    """A prompt, and what its row knows besides."""

    messages: tuple[Message, ...]
    columns: Mapping[str, Any]
    conversational: bool
    """Whether the row wrote messages, as TRL distinguishes: then reward functions get messages too, else text."""
    origin: Origin
    continued: bool = False
    """Whether the prompt is the beginning of a text: no chat template stands around it."""

    @property
    def key(self) -> str:
        """The prompt: a training row that has a held-out one's is never trained on."""
        return said(self.messages)

    @property
    def opening(self) -> str:
        return opening(self.messages) or self.key

    @property
    def text(self) -> str:
        """The last thing that was said."""
        return self.messages[-1].content

    def as_row(self) -> dict[str, Any]:
        """A row that reads back as the same task."""
        if self.continued:
            return {**self.columns, "text": self.text}
        prompt: Any = [message.as_dict() for message in self.messages]
        if not self.conversational and [m.role for m in self.messages] == ["user"]:
            prompt = self.text
        return {**self.columns, "prompt": prompt}


def read_prompts(spec: DataSettings, ledger: Ledger, continued: bool = False) -> list[Task]:
    """All usable prompts in file order, kept. Raises UserError for unusable files, and too many bad rows.

    continued: the rows' column `text` is wanted, for answers to continue its beginning.
    """
    if not continued:
        _check(spec)
    parse = _text_task if continued else _task
    tasks = []
    for row in raw_rows(spec, ledger):
        try:
            tasks.append(parse(row, spec))
            ledger.keep()
        except BadRow as error:
            ledger.quarantine(row.origin, str(error), row.value)
    ledger.check(spec.max_bad_rows)
    return tasks


def _check(spec: DataSettings) -> None:
    """UserError where a setting of the data would do nothing."""
    if spec.layout and BY_NAME[spec.layout].kind == "documents":
        raise UserError(
            f"layout: {spec.layout} has no prompts.",
            where=", ".join(spec.path),
            fix="say which column is the prompt: columns: {prompt: text}",
        )
    unread = [name for name in spec.columns if name in TAKEN - {"prompt", "completion"}]
    if unread:
        raise UserError(
            f"columns names {unread[0]!r}, which no row may have here.", fix="call it something else"
        )


def _values(row: RawRow, spec: DataSettings) -> dict[str, Any]:
    if row.problem:
        raise BadRow(row.problem)
    if not isinstance(row.value, dict):
        raise BadRow("not a JSON object")
    return renamed(row.value, spec.columns)


def _text_task(row: RawRow, spec: DataSettings) -> Task:
    values = _values(row, spec)
    text = parse_text(values, row.origin).text
    others = {name: value for name, value in values.items() if name not in TAKEN and name != "text"}
    return Task((Message("user", text),), others, False, row.origin, continued=True)


def _task(row: RawRow, spec: DataSettings) -> Task:
    values = _values(row, spec)
    messages = tuple(_messages(values, row.origin, spec.layout))
    while messages and messages[-1].role == "assistant":  # the answer that the data gives
        messages = messages[:-1]
    check_turns(messages)
    if not messages or messages[-1].role == "system":
        raise BadRow("no question")
    column = next((name for name in COLUMNS if values.get(name) is not None), "")
    others = {name: value for name, value in values.items() if name not in TAKEN}
    return Task(messages, others, isinstance(values.get(column), list), row.origin)


def _messages(values: dict[str, Any], origin: Origin, layout: str | None) -> list[Message]:
    """All that is said up to the answer, and perhaps with it."""
    column = (
        BY_NAME[layout].needs[0] if layout else next((n for n in COLUMNS if values.get(n) is not None), "")
    )
    if layout and values.get(column) is None:
        raise BadRow(f"no column {column!r}")
    if column in ("messages", "conversations"):
        found = parse_messages(values[column], column)
        return found if found and found[0].role == "system" else system_messages(values) + found
    if column == "instruction":
        return instruction_messages(values)
    if column == "question":
        return [*system_messages(values), Message("user", string(values, column))]
    if column == "prompt":
        return system_messages(values) + prompt_turns(values[column], column)
    pair = next((option for option in candidates(values) if option.kind == "pairs"), None)
    if pair is None:
        hint = "; prompt_tokens takes the beginning of a text for one" if "text" in values else ""
        raise BadRow(f"no prompt: none of the columns {', '.join(COLUMNS)}{hint}")
    parsed = pair.parse(values, origin)
    assert isinstance(parsed, Pair)
    return list(parsed.prompt)
