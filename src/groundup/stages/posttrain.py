"""SFT and DPO: rows, a model with or without an adapter, the loop, and answers before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from groundup.batch import Batch, Record, Stream, segment_tokens
from groundup.config.schema import DpoSettings
from groundup.eval import evaluate_records, packed_rows, record_logps
from groundup.eval.answers import answer_prompts
from groundup.infer.load import check_vocabulary
from groundup.machine.plan import Plan
from groundup.model import LanguageModel, read_config
from groundup.objective import Dpo, LanguageModeling, Objective
from groundup.stages.context import REHEARSAL_ITEMS, Context
from groundup.stages.models import find_model
from groundup.stages.rows import read_rows
from groundup.stages.samples import answer_tokens, answers_before, sampled
from groundup.stages.training import (
    Material,
    choose_compute,
    choose_layout,
    make_plan,
    run_training,
    say_plan,
    step_rows,
)
from groundup.stages.weights import base_model, check_lengths, save_result, starting_model, with_template
from groundup.store.files import read_json, write_json
from groundup.tokenizer import load_tokenizer


def run(context: Context) -> dict[str, Any]:
    """Train `final/` from the stage's rows: an adapter in PEFT's layout, or a whole model with `lora: false`."""
    source = find_model(context, context.settings.from_)
    tokenizer = with_template(load_tokenizer(source.tokenizer), context.recipe.chat)
    config = read_config(source.base)
    check_vocabulary(tokenizer, config, f"stages.{context.name}.from")
    rows = read_rows(context, tokenizer)
    check_lengths(context, config, rows)
    compute = choose_compute(context, config)
    base = base_model(context, source, compute)
    exact = choose_layout(context, base, context.settings.max_length)
    model = starting_model(context, base, source, compute)
    material = material_of(context, rows.train, exact.layout)
    plan = make_plan(context, model, compute, material, exact.reason)
    say_plan(plan, model, material)
    before = answers_before(context, model, tokenizer, rows)
    heldout = rows.heldout[:REHEARSAL_ITEMS] if context.rehearse else rows.heldout
    if isinstance(context.settings, DpoSettings):
        reference = reference_logps(context, model, material, plan, heldout)
        material = replace(
            material, records=lambda ids: with_reference([rows.train[i] for i in ids], reference)
        )
        heldout = with_reference(heldout, reference)

    def evaluate() -> dict[str, float]:
        return evaluate_records(
            model,
            heldout,
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
    return {"kind": context.settings.kind, "rows": rows.ledger, "samples": samples, **result}


def material_of(context: Context, records: list[Record], layout: str) -> Material:
    """The stage's records as a stream of whole rows, with its objective."""
    settings = context.settings
    objective: Objective = LanguageModeling()
    if isinstance(settings, DpoSettings):
        objective = Dpo(settings.beta)
        # The reference is computed on the rows that the plan makes; steps can be timed with any other.
        records = with_reference(records, dict.fromkeys(range(len(records)), (0.0, 0.0)))
    sizes = np.array([segment_tokens(record, layout) for record in records])
    stream = Stream(np.ones(len(records), dtype=np.int64), settings.batch_size, context.recipe.seed)
    longest = max(len(chain.token) for record in records for chain in record.chains)
    return Material(stream, sizes, lambda ids: [records[i] for i in ids], objective, layout, longest)


def reference_logps(
    context: Context, model: LanguageModel, material: Material, plan: Plan, heldout: list[Record]
) -> dict[int, tuple[float, ...]]:
    """Log-probabilities of every pair that will be seen, by the model as the stage begins: the reference.

    Computed once, on the very rows of the first epoch, so that the first step's margins are exactly zero; kept in
    `data/reference.json` for a resumed run.
    """
    path = context.stage.data / "reference.json"
    if path.exists():
        return {int(index): tuple(values) for index, values in read_json(path).items()}
    steps = min(plan.total_steps, material.stream.steps_for(1.0))

    def rows() -> Iterator[Batch]:
        for step in range(steps):
            yield from step_rows(context, material, plan, step)
        yield from packed_rows(heldout, plan.row_tokens, plan.layout)

    # With those that the last step takes of the next epoch.
    pairs = steps * context.settings.batch_size + len(heldout)
    found = record_logps(model, rows(), device=plan.device, total=pairs, title="Reference")
    write_json(path, found)
    return found


def with_reference(records: list[Record], reference: dict[int, tuple[float, ...]]) -> list[Record]:
    """The records with their `ref_logp` column."""
    return [replace(record, sequence={"ref_logp": reference[record.index]}) for record in records]
