"""SFT and the DPO family: rows, a model with or without an adapter, the loop, and answers before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.batch import Record, Stream, segment_tokens
from groundup.config.schema import DpoSettings
from groundup.eval import evaluate_records
from groundup.eval.answers import answer_prompts
from groundup.infer.load import check_vocabulary
from groundup.model import read_config
from groundup.objective import LanguageModeling, Objective
from groundup.stages.context import REHEARSAL_ITEMS, Context
from groundup.stages.models import find_model
from groundup.stages.preference import columned, compared, preference_objective, timed_as_trained
from groundup.stages.reference import choose_reference
from groundup.stages.rows import read_rows
from groundup.stages.samples import answer_tokens, answers_before, sampled
from groundup.stages.training import (
    Material,
    choose_compute,
    choose_layout,
    make_plan,
    run_training,
    say_plan,
)
from groundup.stages.weights import base_model, check_lengths, save_result, starting_model, with_template
from groundup.tokenizer import load_tokenizer


def run(context: Context) -> dict[str, Any]:
    """Train `final/` from the stage's rows: an adapter in PEFT's layout, or a whole model with `lora: false`."""
    settings = context.settings
    source = find_model(context, settings.from_)
    tokenizer = with_template(load_tokenizer(source.tokenizer), context.recipe.chat)
    config = read_config(source.base)
    check_vocabulary(tokenizer, config, f"stages.{context.name}.from")
    compares = isinstance(settings, DpoSettings)
    reference = choose_reference(context, source, tokenizer) if compares else None
    rows = read_rows(context, tokenizer)
    check_lengths(context, config, rows)
    compute = choose_compute(context, config)
    base = base_model(context, source, compute)
    exact = choose_layout(context, base, settings.max_length)
    model = starting_model(context, base, source, compute)
    material = material_of(context, rows.train, exact.layout)
    timed = timed_as_trained(settings, model, material) if compares else material
    plan = make_plan(context, model, compute, timed, exact.reason, reference.said if reference else "")
    say_plan(plan, model, material)
    before = answers_before(context, model, tokenizer, rows)
    train, heldout = rows.train, rows.heldout[:REHEARSAL_ITEMS] if context.rehearse else rows.heldout
    if compares:
        train, heldout = columned(settings, train), columned(settings, heldout)
    material, held_out_now = compared(context, reference, model, material, plan, train, heldout)

    def evaluate() -> dict[str, float]:
        return evaluate_records(
            model,
            held_out_now(),
            material.objective,
            row_tokens=plan.row_tokens,
            layout=plan.layout,
            device=plan.device,
            title="Evaluating",
        )

    result = run_training(context, model, plan, material, evaluate, f"Training {context.name}")
    save_result(context, model, source, tokenizer)
    after = answer_prompts(
        model, tokenizer, context.recipe.chat, sampled(context, rows), answer_tokens(context)
    )
    samples = [
        {"prompt": prompt.text, "reference": prompt.reference, "before": old, "after": new}
        for prompt, old, new in zip(sampled(context, rows), before, after, strict=True)
    ]
    return {"kind": settings.kind, "rows": rows.ledger, "samples": samples, **result}


def material_of(
    context: Context, records: list[Record], layout: str, objective: Objective | None = None
) -> Material:
    """The stage's records as a stream of whole rows, with its objective; by default the one that the recipe names."""
    settings = context.settings
    if objective is None:
        objective = LanguageModeling()
        if isinstance(settings, DpoSettings):
            objective = preference_objective(settings)
            records = columned(settings, records)
    sizes = np.array([segment_tokens(record, layout) for record in records])
    stream = Stream(np.ones(len(records), dtype=np.int64), settings.batch_size, context.recipe.seed)
    longest = max(len(chain.token) for record in records for chain in record.chains)
    return Material(stream, sizes, lambda ids: [records[i] for i in ids], objective, layout, longest)
