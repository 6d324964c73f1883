"""Every model from the base to the last, on the same held-out rows and prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup import console
from groundup.batch import Record
from groundup.config.schema import DataSettings
from groundup.data import Ledger, holds_pairs
from groundup.errors import UserError
from groundup.eval import evaluate_records
from groundup.eval.answers import answer_prompts
from groundup.infer import Loaded, load_for_inference
from groundup.objective import LanguageModeling, Preference
from groundup.stages.context import REHEARSAL_ITEMS, Context
from groundup.stages.inputs import stages_before
from groundup.stages.rows import Item, Prompt, Renderer, prompt_of, read_items
from groundup.stages.training import LAYOUT

ROW_TOKENS = 4096
REHEARSAL_TOKENS = 8


@dataclass(frozen=True)
class Compared:
    """One model of the comparison; `source` is a stage's name or any model's name."""

    name: str
    source: str


def run(context: Context) -> dict[str, Any]:
    """Metrics of each model on held-out conversations and pairs, and their answers side by side."""
    settings = context.settings
    ledger = Ledger(context.stage.quarantine)
    conversations, pairs = heldout_items(context, ledger)
    models, answers = [], {}
    prompts = choose_prompts(context, conversations or pairs)
    tokens = REHEARSAL_TOKENS if context.rehearse else settings.sample_tokens
    for number, compared in enumerate(chain_of(context)):
        console.say(f"  {compared.name}")
        loaded = load_for_inference(compared.source, context.run)
        counted = ledger if number == 0 else Ledger(None)
        metrics = measure(context, loaded, conversations, pairs, counted)
        models.append({"name": compared.name, "metrics": metrics})
        answers[compared.name] = answer_prompts(loaded.model, loaded.tokenizer, loaded.chat, prompts, tokens)
    return {
        "kind": "eval",
        "models": models,
        "generations": [
            {"prompt": prompt.text, "reference": prompt.reference, "answers": {n: a[i] for n, a in answers.items()}}
            for i, prompt in enumerate(prompts)
        ],
        "rows": ledger.as_dict(),
    }


def chain_of(context: Context) -> list[Compared]:
    """The base model, then every stage that changed it, up to the one that is named."""
    stages = context.recipe.stages
    last = context.settings.from_
    if last not in stages:
        return [Compared(Path(last).name or last, last)]
    names = [name for name in [*stages_before(context.recipe, last), last] if stages[name].kind in ("sft", "dpo", "merge")]
    if not names:
        return [Compared(last, last)]
    base = stages[names[0]].from_
    assert base is not None
    return [Compared("base", base), *(Compared(name, name) for name in names)]


def heldout_items(context: Context, ledger: Ledger) -> tuple[list[Item], list[Item]]:
    """Conversations and pairs: of `data`, or what the chain's stages held out."""
    settings = context.settings
    if settings.data is not None:
        if holds_pairs(settings.data):
            return [], read_items(settings.data, ledger, "pairs")
        return read_items(settings.data, ledger, "conversations"), []
    found: dict[str, list[Item]] = {"sft": [], "dpo": []}
    for name in stages_before(context.recipe, context.name):
        path = context.run.stage(name).data / "heldout.jsonl"
        kind = context.recipe.stages[name].kind
        if kind in found and path.exists():
            reading = "pairs" if kind == "dpo" else "conversations"
            found[kind] += read_items(DataSettings(path=[str(path)]), ledger, reading)
    if not any(found.values()):
        raise UserError(
            f"stage {context.name} has no rows to evaluate on",
            where=f"stages.{context.name}",
            why=f"'{settings.from_}' comes from no stage of this recipe that held rows out",
            fix="name held-out rows with data (on the command line: --data F)",
        )
    return found["sft"], found["dpo"]


def measure(
    context: Context, loaded: Loaded, conversations: list[Item], pairs: list[Item], ledger: Ledger
) -> dict[str, float]:
    """eval_loss on the conversations, preference numbers on the pairs."""
    renderer = Renderer(loaded.tokenizer, context.recipe.chat, context.settings.max_length)
    metrics: dict[str, float] = {}
    for items, objective in ((conversations, LanguageModeling()), (pairs, Preference())):
        if context.rehearse:
            items = items[:REHEARSAL_ITEMS]
        records = [Record(index, chains) for index, (_, chains) in enumerate(renderer.chains(items, ledger))]
        if records:
            metrics |= evaluate_records(
                loaded.model,
                records,
                objective,
                row_tokens=max(ROW_TOKENS, 2 * context.settings.max_length),
                layout=LAYOUT,
                device=str(loaded.model.device),
                title="Evaluating",
            )
    return metrics


def choose_prompts(context: Context, items: list[Item]) -> list[Prompt]:
    """Spread over the held-out rows, so that neighbours in the file do not all ask alike."""
    count = min(REHEARSAL_ITEMS if context.rehearse else context.settings.sample_count, len(items))
    return [prompt_of(items[i * len(items) // count]) for i in range(count)]
