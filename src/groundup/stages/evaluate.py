"""Every model from the base to the last, on the same held-out rows and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup import console
from groundup.batch import Chain, Record
from groundup.config.schema import ChatSettings, DataSettings
from groundup.data import Ledger, holds_pairs
from groundup.errors import UserError
from groundup.eval import evaluate_records
from groundup.eval.answers import answer_prompts
from groundup.infer import Loaded, load_for_inference
from groundup.infer.origin import planned_dtype
from groundup.objective import LanguageModeling, Preference
from groundup.stages.context import REHEARSAL_TOKENS, Context
from groundup.stages.inputs import stages_before
from groundup.stages.origin import origin_of
from groundup.stages.rows import Item, Prompt, Renderer, asked, prompt_of, read_items, row_kind

ROW_TOKENS = 4096
Usable = tuple[Item, tuple[Chain, ...]]
"""A row and what is rendered of it."""


@dataclass(frozen=True)
class Compared:
    """One model of the comparison; `source` is a stage's name or any model's name."""

    name: str
    source: str


def run(context: Context) -> dict[str, Any]:
    """Metrics of each model on held-out conversations and pairs, and their answers side by side."""
    origin = origin_of(context)
    ledger = Ledger(context.stage.quarantine)
    conversations, pairs = heldout_items(context, origin, ledger)
    for line in ledger.decisions() if context.settings.data is not None else []:
        console.say(f"  {line}")
    models, answers = [], {}
    prompts: list[Prompt] | None = None
    tokens = REHEARSAL_TOKENS if context.rehearse else context.settings.sample_tokens
    dtype = (origin and planned_dtype(origin.run, origin.stage.final)) or "auto"
    for number, compared in enumerate(chain_of(context, origin)):
        console.say(f"  {compared.name}")
        loaded = with_chat(load_for_inference(compared.source, (origin or context).run, dtype), context)
        dtype = str(loaded.model.compute_dtype).removeprefix("torch.")  # one for all, to compare them
        counted = ledger if number == 0 else Ledger(None)
        rendered = [
            list(renderer_for(context, loaded).chains(items, counted)) for items in (conversations, pairs)
        ]
        if number == 0:
            check_rows(context, ledger, rendered)
            console.say(f"  {ledger}")
        metrics, usable = measure(context, loaded, *rendered)
        prompts = choose_prompts(context, usable) if prompts is None else prompts
        models.append({"name": compared.name, "metrics": metrics})
        answers[compared.name] = answer_prompts(loaded.model, loaded.tokenizer, loaded.chat, prompts, tokens)
    return {
        "kind": "eval",
        "models": models,
        "generations": [
            {
                "prompt": prompt.text,
                "reference": prompt.reference,
                "answers": {n: a[i] for n, a in answers.items()},
            }
            for i, prompt in enumerate(prompts or [])
        ],
        "rows": ledger.as_dict(),
    }


def chain_of(context: Context, origin: Context | None) -> list[Compared]:
    """The base model, then every stage that changed it, up to the one that made the model that is named."""
    last = context.settings.from_
    if origin is None:
        return [Compared(Path(last).name or last, last)]
    stages = origin.recipe.stages
    chain = [*stages_before(origin.recipe, origin.name), origin.name]
    names = [name for name in chain if stages[name].kind in ("sft", "dpo", "grpo", "ppo", "merge")]
    if not names:
        return [Compared(origin.name, last)]
    base: str = replace(origin, name=names[0]).settings.from_
    return [Compared("base", base), *(Compared(name, name) for name in names)]


def with_chat(loaded: Loaded, context: Context) -> Loaded:
    """Chat settings of this recipe count before those of the run that the model is from."""
    return loaded if context.recipe.chat == ChatSettings() else replace(loaded, chat=context.recipe.chat)


def heldout_items(context: Context, origin: Context | None, ledger: Ledger) -> tuple[list[Item], list[Item]]:
    """Conversations and pairs: of `data`, or what the chain's stages held out."""
    settings = context.settings
    if settings.data is not None:
        if holds_pairs(settings.data):
            return [], read_items(settings.data, ledger, "pairs")
        return read_items(settings.data, ledger, "conversations"), []
    conversations: list[Item] = []
    pairs: list[Item] = []
    made = origin or context
    for name in [*stages_before(made.recipe, made.name), made.name]:
        path = made.run.stage(name).data / "heldout.jsonl"
        stage = made.recipe.stages[name]
        if stage.kind not in ("sft", "dpo") or not path.exists():
            continue
        if row_kind(stage) == "pairs":
            pairs += read_items(DataSettings(path=[str(path)]), ledger, "pairs")
        else:  # of labelled answers the good ones
            conversations += read_items(DataSettings(path=[str(path)]), ledger, "conversations")
    if not conversations and not pairs:
        raise UserError(
            f"stage {context.name} has no rows to evaluate on",
            where=f"stages.{context.name}",
            why=f"'{settings.from_}' comes from no stage that held rows out",
            fix="name held-out rows with data (on the command line: --data F)",
        )
    return conversations, pairs


def renderer_for(context: Context, loaded: Loaded) -> Renderer:
    """Renders as the model was trained; no row may be longer than the model's context."""
    return Renderer(loaded.tokenizer, loaded.chat, min(context.settings.max_length, loaded.context_tokens))


def check_rows(context: Context, ledger: Ledger, rendered: Sequence[Sequence[object]]) -> None:
    """Raises UserError when too many rows cannot be used, or none can."""
    data = context.settings.data
    if not any(rendered):
        raise UserError(
            "no rows are left to evaluate on",
            where=", ".join(data.path) if data else f"stages.{context.name}",
            why=str(ledger),
            fix="name other rows with data, or raise max_length",
        )
    most = (data or DataSettings(path=[])).max_bad_rows
    ledger.check(most, "raise max_length for long rows, repair or remove the others")


def measure(
    context: Context, loaded: Loaded, conversations: Sequence[Usable], pairs: Sequence[Usable]
) -> tuple[dict[str, float], list[Item]]:
    """eval_loss on the conversations, preference numbers on the pairs; and the conversations, else pairs, in use."""
    longest_tokens = min(context.settings.max_length, loaded.context_tokens)
    metrics: dict[str, float] = {}
    for rendered, objective in ((conversations, LanguageModeling()), (pairs, Preference())):
        records = context.few([Record(index, chains) for index, (_, chains) in enumerate(rendered)])
        if records:
            metrics |= evaluate_records(
                loaded.model,
                records,
                objective,
                row_tokens=max(ROW_TOKENS, 2 * longest_tokens),
                layout=loaded.layout,
                device=str(loaded.model.device),
                title="Evaluating",
            )
    return metrics, [item for item, _ in conversations or pairs]


def choose_prompts(context: Context, items: list[Item]) -> list[Prompt]:
    """The recipe's own, then some spread over the held-out rows: neighbours in a file often ask alike."""
    count = min(context.settings.sample_count, len(items))
    heldout = [prompt_of(items[i * len(items) // count]) for i in range(count)]
    return context.few([*asked(context.settings.sample_prompts), *heldout])
