"""A reward model from pairs: a decoder that gives a text one number, saved as transformers' sequence classifier."""

from __future__ import annotations

from typing import Any

from groundup.batch import Record
from groundup.model import attach_score, check_classifier, choose_padding
from groundup.model.reward import stock_classifier
from groundup.objective import BradleyTerry
from groundup.stages.context import Context
from groundup.stages.opening import find_start, open_model
from groundup.stages.posttrain import material_of
from groundup.stages.rows import Rows, read_rows
from groundup.stages.training import evaluate_on, make_plan, run_training, say_plan
from groundup.stages.weights import check_lengths, save_result


def run(context: Context) -> dict[str, Any]:
    """Train `final/`: PEFT's adapter of a sequence classifier with its head, or a whole one with `lora: false`."""
    settings = context.settings
    found = find_start(context)
    tokenizer = found.tokenizer
    check_classifier(found.config, f"stages.{context.name}.from")
    rows = read_rows(context, tokenizer)
    check_lengths(context, found.config, rows)
    choose_padding(tokenizer, found.config.vocab_size, last_tokens(rows))
    opened = open_model(context, found, settings.max_length)
    model = opened.model
    attach_score(model, context.recipe.seed)
    stock_classifier(model, tokenizer.pad_token_id)  # raises where the result could not be saved
    objective = BradleyTerry(settings.center_rewards_coefficient)
    material = material_of(context, rows.train, opened.exact.layout, objective)
    plan = make_plan(context, model, opened.compute, material, opened.exact.reason)
    say_plan(plan, model, material)
    heldout = context.few(rows.heldout)

    def evaluate() -> dict[str, float]:
        return evaluate_on(model, heldout, objective, plan)

    result = run_training(context, model, plan, material, evaluate, f"Training {context.name}")
    save_result(context, model, found.folders, tokenizer, reward=True)
    return {"kind": "reward", "rows": rows.ledger, **result}


def last_tokens(rows: Rows) -> set[int]:
    """Ids that texts end with; behind them each chain has a target that is no token."""
    records: list[Record] = rows.train + rows.heldout
    return {int(chain.token[-2]) for record in records for chain in record.chains}
