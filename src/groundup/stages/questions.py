"""Prompts for a policy: read, rendered, measured, split; every row accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.config.schema import DataSettings
from groundup.data import Ledger, Message
from groundup.data.prompts import Task, read_prompts
from groundup.rollout.answers import Question
from groundup.stages.context import Context
from groundup.stages.heldout import check_parts, keep_heldout, read_parts
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import BadConversation, render_prompt
from groundup.tokenizer.encode import Beginnings


@dataclass(frozen=True)
class Questions:
    """What a policy answers in training, and what it is measured on."""

    train: list[Question]
    heldout: list[Question]
    ledger: dict[str, Any]


def read_questions(context: Context, tokenizer: Tokenizer) -> Questions:
    """The stage's prompts; the held-out part is written to `data/`.

    Raises UserError when too many rows are unusable, or nothing is left to train or evaluate on.
    """
    settings = context.settings
    ledger = Ledger(context.stage.quarantine)
    train, heldout = read_parts(
        settings,
        lambda data: _read(context, tokenizer, data, ledger),
        lambda question: question.task.as_row(),
        ledger,
    )
    check_parts(settings, train, heldout, ledger, "" if settings.prompt_tokens else "max_prompt_length")
    keep_heldout(context, (question.task.as_row() for question in heldout), ledger)
    return Questions(train, heldout, ledger.as_dict())


def _read(context: Context, tokenizer: Tokenizer, data: DataSettings, ledger: Ledger) -> list[Question]:
    """Questions in the chat template, or the beginnings of texts."""
    tokens = context.settings.prompt_tokens
    if tokens:
        beginnings = Beginnings(tokenizer, tokens)
        return [_begun(beginnings, task) for task in read_prompts(data, ledger, continued=True)]
    return _rendered(context, tokenizer, read_prompts(data, ledger), ledger)


def _begun(beginnings: Beginnings, task: Task) -> Question:
    token, text = beginnings.of(task.text)
    return Question(token, replace(task, messages=(Message("user", text),)))


def _rendered(
    context: Context, tokenizer: Tokenizer, tasks: Sequence[Task], ledger: Ledger
) -> list[Question]:
    limit_tokens = context.settings.max_prompt_length
    found = []
    for task in tasks:
        try:
            token = render_prompt(tokenizer, task.messages, context.recipe.chat).token
        except BadConversation as error:
            ledger.quarantine_kept(task.origin, str(error), task.as_row())
            continue
        if len(token) > limit_tokens:
            ledger.quarantine_kept(task.origin, f"a prompt longer than {limit_tokens} tokens", task.as_row())
            continue
        found.append(Question(tuple(token.tolist()), task))
    return found
