"""Prompts for a policy: read, rendered, measured, split; every row accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup import console
from groundup.data import Ledger, content_hash, split_holdout
from groundup.data.prompts import Task, read_prompts
from groundup.errors import UserError
from groundup.rollout.answers import Question
from groundup.stages.context import Context
from groundup.store.files import write_text
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import BadConversation, render_prompt


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
    settings, stage = context.settings, context.stage
    ledger = Ledger(stage.quarantine)
    tasks = _unique(read_prompts(settings.data, ledger), ledger)
    if settings.eval_data is None:
        train_tasks, heldout_tasks = split_holdout(tasks, settings.holdout, key=lambda task: task.key)
    else:
        heldout_tasks = read_prompts(settings.eval_data, ledger)
        held = {task.key for task in heldout_tasks}
        train_tasks = [task for task in tasks if task.key not in held]
        for _ in range(len(tasks) - len(train_tasks)):
            ledger.filter_kept("its prompt is held out")
    train, heldout = (_rendered(context, tokenizer, part, ledger) for part in (train_tasks, heldout_tasks))
    if not train or not heldout:
        raise UserError(
            f"no prompts are left to {'evaluate' if train else 'train'} on",
            where=", ".join(settings.data.path),
            why=str(ledger),
            fix="add rows, raise max_prompt_length, raise holdout, or give eval_data",
        )
    ledger.check(
        settings.data.max_bad_rows, "raise max_prompt_length for long prompts, repair or remove the others"
    )
    lines = (
        json.dumps(question.task.as_row(), ensure_ascii=False, default=str) + "\n" for question in heldout
    )
    write_text(stage.data / "heldout.jsonl", "".join(lines))
    for line in ledger.decisions():
        console.say(f"  {line}")
    console.say(f"  {ledger}; {len(heldout)} of the kept rows are held out")
    return Questions(train, heldout, ledger.as_dict())


def _unique(tasks: Sequence[Task], ledger: Ledger) -> list[Task]:
    """Each row once; a copy is counted as deduplicated."""
    seen: set[str] = set()
    kept = []
    for task in tasks:
        key = content_hash(json.dumps(task.as_row(), ensure_ascii=False, default=str))
        if key in seen:
            ledger.deduplicate_kept()
        else:
            seen.add(key)
            kept.append(task)
    return kept


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
