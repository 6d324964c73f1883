"""A model's chat template, filled in; every failure of a template becomes a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from groundup.config.schema import ChatSettings
from groundup.data.types import Message
from groundup.errors import UserError

SHIPPED = ("chatml",)


class BadConversation(UserError):
    """This conversation cannot be rendered; others of the same file may."""

    def __str__(self) -> str:
        """One line: the reason in the quarantine file."""
        return self.what


@dataclass(frozen=True)
class Template:
    """A tokenizer's template together with everything but the messages."""

    tokenizer: Any
    chat: ChatSettings
    source: str | None
    tools: list[dict[str, Any]] | None = None

    @classmethod
    def of(
        cls, tokenizer: Any, chat: ChatSettings, tools: Sequence[dict[str, Any]] | None = None
    ) -> Template:
        """The template file that `chat` names, else the tokenizer's own. UserError where there is neither."""
        if chat.chat_template:
            source = _read(Path(chat.chat_template).expanduser())
        elif getattr(tokenizer, "chat_template", None):
            source = None
        else:
            raise UserError(
                "The model has no chat template.",
                why="it is a base model, or its tokenizer was saved without one",
                fix="set chat.chat_template in the recipe to a Jinja file, or start from an instruct model",
            )
        return cls(tokenizer, chat, source, list(tools) if tools else None)

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """As the template gets them, the system prompt of the settings put first if they have none."""
        rows = [message.as_dict() for message in messages]
        if self.chat.system_prompt is not None and (not rows or rows[0]["role"] != "system"):
            rows.insert(0, {"role": "system", "content": self.chat.system_prompt})
        return rows

    def fill(self, rows: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The conversation as one text. BadConversation where the template refuses it."""
        try:
            return self.tokenizer.apply_chat_template(
                rows,
                tools=self.tools,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **self.chat.chat_template_kwargs,
            )
        except jinja2.TemplateSyntaxError as error:
            where = f"{self.chat.chat_template or 'the chat template of the model'}:{error.lineno}"
            raise UserError("The chat template is not valid Jinja.", where=where, why=str(error)) from error
        except Exception as error:  # a template is a program of somebody else's: it may raise anything
            raise BadConversation(
                f"the chat template refuses the conversation: {error}",
                fix="look at the roles and their order; chat.chat_template in the recipe sets another template",
            ) from error


def template_text(named: str | None) -> str | None:
    """A chat template by the name of a shipped one, or by its path. UserError where it cannot be read."""
    if named in SHIPPED:
        return resources.files("groundup.tokenizer").joinpath(f"{named}.jinja").read_text(encoding="utf-8")
    return _read(Path(named).expanduser()) if named else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "The chat template cannot be read.",
            where=str(path),
            why=why,
            fix="check chat_template in the recipe",
        ) from error


def special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches any of the tokenizer's special tokens, a longer one before its own beginning."""
    return _special_tokens(tokenizer, len(tokenizer))  # the length changes when tokens are added


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: Any, _size: int) -> re.Pattern[str]:
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names |= set(tokenizer.all_special_tokens)
    longest_first = sorted(names - {""}, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
