"""Prompts that a stage answers before and after: the recipe's own, then held-out ones."""

from __future__ import annotations

import json

from groundup.eval.answers import answer_prompts
from groundup.model import LanguageModel
from groundup.stages.context import REHEARSAL_TOKENS, Context
from groundup.stages.rows import Prompt, Rows, asked
from groundup.store.files import read_jsonl, write_text
from groundup.tokenizer import Tokenizer


def answers_before(context: Context, model: LanguageModel, tokenizer: Tokenizer, rows: Rows) -> list[str]:
    """What the model answers as the stage begins; kept in `samples.jsonl`, for a resumed run."""
    path = context.stage.samples
    if not path.exists():
        answers = answer_prompts(
            model, tokenizer, context.recipe.chat, sampled(context, rows), answer_tokens(context)
        )
        write_text(path, "".join(json.dumps({"before": text}, ensure_ascii=False) + "\n" for text in answers))
    return [line["before"] for line in read_jsonl(path)]


def sampled(context: Context, rows: Rows) -> list[Prompt]:
    """The prompts that are answered before and after."""
    settings = context.settings
    return context.few([*asked(settings.sample_prompts), *rows.prompts[: settings.sample_count]])


def answer_tokens(context: Context) -> int:
    return REHEARSAL_TOKENS if context.rehearse else int(context.settings.sample_tokens)
