"""A reward model from pairs: a decoder that gives a text one number, saved as transformers' sequence classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.batch import Record
from groundup.eval import evaluate_records
from groundup.infer.load import check_vocabulary
from groundup.model import (
    LanguageModel,
    attach_score,
    check_classifier,
    choose_padding,
    has_lora,
    read_config,
    save_adapter,
    save_reward_model,
)
from groundup.model.reward import stock_classifier
from groundup.objective import BradleyTerry
from groundup.stages.context import REHEARSAL_ITEMS, Context
from groundup.stages.models import ModelFolders, find_model
from groundup.stages.posttrain import material_of
from groundup.stages.rows import Rows, read_rows
from groundup.stages.training import (
    choose_compute,
    choose_layout,
    make_plan,
    run_training,
    say_plan,
)
from groundup.stages.weights import base_model, check_lengths, starting_model, with_template
from groundup.store.files import publish_folder
from groundup.tokenizer import Tokenizer, load_tokenizer


def run(context: Context) -> dict[str, Any]:
    """Train `final/`: PEFT's adapter of a sequence classifier with its head, or a whole one with `lora: false`."""
    settings = context.settings
    source = find_model(context, settings.from_)
    tokenizer = with_template(load_tokenizer(source.tokenizer), context.recipe.chat)
    config = read_config(source.base)
    check_vocabulary(tokenizer, config, f"stages.{context.name}.from")
    check_classifier(config, f"stages.{context.name}.from")
    rows = read_rows(context, tokenizer)
    check_lengths(context, config, rows)
    choose_padding(tokenizer, config.vocab_size, last_tokens(rows))
    compute = choose_compute(context, config)
    base = base_model(context, source, compute)
    exact = choose_layout(context, base, settings.max_length)
    model = starting_model(context, base, source, compute)
    attach_score(model, context.recipe.seed)
    stock_classifier(model, tokenizer.pad_token_id)  # raises where the result could not be saved
    objective = BradleyTerry(settings.center_rewards_coefficient)
    material = material_of(context, rows.train, exact.layout, objective)
    plan = make_plan(context, model, compute, material, exact.reason)
    say_plan(plan, model, material)
    heldout = rows.heldout[:REHEARSAL_ITEMS] if context.rehearse else rows.heldout

    def evaluate() -> dict[str, float]:
        return evaluate_records(
            model,
            heldout,
            objective,
            row_tokens=plan.row_tokens,
            layout=plan.layout,
            device=plan.device,
            title="Evaluating",
        )

    result = run_training(context, model, plan, material, evaluate, f"Training {context.name}")
    save(context, model, source, tokenizer)
    return {"kind": "reward", "rows": rows.ledger, **result}


def last_tokens(rows: Rows) -> set[int]:
    """Ids that texts end with; behind them each chain has a target that is no token."""
    records: list[Record] = rows.train + rows.heldout
    return {int(chain.token[-2]) for record in records for chain in record.chains}


def save(context: Context, model: LanguageModel, source: ModelFolders, tokenizer: Tokenizer) -> None:
    """Write `final/`, whole or not at all."""
    if not has_lora(model):
        save_reward_model(model, context.stage.final, tokenizer)
        return

    def write(folder: Path) -> None:
        save_adapter(model, folder, source.base_name, reward=True)
        tokenizer.save_pretrained(folder)

    publish_folder(context.stage.final, write)
