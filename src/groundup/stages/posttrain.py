"""SFT and the DPO family: rows, a model with or without an adapter, the loop, and answers before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.batch import Record, Stream, segment_tokens
from groundup.config.schema import DpoSettings
from groundup.eval.answers import answer_prompts
from groundup.objective import LanguageModeling, Objective
from groundup.stages.context import Context
from groundup.stages.opening import find_start, open_model
from groundup.stages.preference import columned, compared, preference_objective, timed_as_trained
from groundup.stages.reference import choose_reference
from groundup.stages.rows import read_rows
from groundup.stages.samples import answer_tokens, answers_before, sampled
from groundup.stages.training import Material, evaluate_on, make_plan, run_training, say_plan
from groundup.stages.weights import check_lengths, save_result


def run(context: Context) -> dict[str, Any]:
    """Train `final/` from the stage's rows: an adapter in PEFT's layout, or a whole model with `lora: false`."""
    settings = context.settings
    found = find_start(context)
    tokenizer = found.tokenizer
    compares = isinstance(settings, DpoSettings)
    reference = choose_reference(context, found.folders, tokenizer) if compares else None
    rows = read_rows(context, tokenizer)
    check_lengths(context, found.config, rows)
    opened = open_model(context, found, settings.max_length)
    model = opened.model
    material = material_of(context, rows.train, opened.exact.layout)
    timed = timed_as_trained(settings, model, material) if compares else material
    said = reference.said if reference else ""
    plan = make_plan(context, model, opened.compute, timed, opened.exact.reason, said)
    say_plan(plan, model, material)
    before = answers_before(context, model, tokenizer, rows)
    train, heldout = rows.train, context.few(rows.heldout)
    if compares:
        train, heldout = columned(settings, train), columned(settings, heldout)
    material, held_out_now = compared(context, reference, model, material, plan, train, heldout)

    def evaluate() -> dict[str, float]:
        return evaluate_on(model, held_out_now(), material.objective, plan)

    result = run_training(context, model, plan, material, evaluate, f"Training {context.name}")
    save_result(context, model, found.folders, tokenizer)
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
