"""SFT and DPO: rows, a model with or without an adapter, the loop, and answers before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup import console
from groundup.batch import Batch, Record, Stream, segment_tokens
from groundup.config.schema import ChatSettings, DpoSettings, LoraSettings
from groundup.errors import UserError
from groundup.eval import evaluate_records, packed_rows, record_logps
from groundup.eval.answers import answer_prompts
from groundup.infer.load import check_vocabulary
from groundup.machine.plan import Plan
from groundup.model import (
    LanguageModel,
    ModelConfig,
    StockConfig,
    adapter_settings,
    attach_lora,
    has_lora,
    load_adapter,
    load_model,
    merge_lora,
    read_config,
    save_adapter,
    save_model,
)
from groundup.objective import Dpo, LanguageModeling, Objective
from groundup.stages.context import REHEARSAL_ITEMS, REHEARSAL_TOKENS, Context
from groundup.stages.models import ModelFolders, find_model
from groundup.stages.rows import Prompt, Rows, read_rows
from groundup.stages.training import (
    Compute,
    Material,
    choose_compute,
    choose_layout,
    make_plan,
    run_training,
    say_plan,
    step_rows,
)
from groundup.store.files import publish_folder, read_json, read_jsonl, write_json, write_text
from groundup.tokenizer import Tokenizer, load_tokenizer
from groundup.tokenizer.template import Template


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
    save(context, model, source, tokenizer)
    after = answer_prompts(
        model, tokenizer, context.recipe.chat, sampled(context, rows), answer_tokens(context)
    )
    samples = [
        {"prompt": prompt.text, "reference": prompt.reference, "before": old, "after": new}
        for prompt, old, new in zip(sampled(context, rows), before, after, strict=True)
    ]
    return {"kind": context.settings.kind, "rows": rows.ledger, "samples": samples, **result}


def with_template(tokenizer: Tokenizer, chat: ChatSettings) -> Tokenizer:
    """The tokenizer with the recipe's chat template, so that whoever opens the saved model has it too."""
    if chat.chat_template:
        tokenizer.chat_template = Template.of(tokenizer, chat).source
    return tokenizer


def check_lengths(context: Context, config: ModelConfig | StockConfig, rows: Rows) -> None:
    """Raise UserError where a row is longer than the model's context."""
    longest = max(len(chain.token) for record in rows.train + rows.heldout for chain in record.chains)
    if longest > config.max_position_embeddings:
        raise UserError(
            f"a row has {longest} tokens, and the model's context ends at {config.max_position_embeddings}",
            where=f"stages.{context.name}.max_length",
            fix=f"set max_length to at most {config.max_position_embeddings}",
        )


def base_model(context: Context, source: ModelFolders, compute: Compute) -> LanguageModel:
    """The weights that the stage begins with, without an adapter."""
    full = context.settings.lora is False
    # An adapter is folded into float32 weights.
    dtype = "float32" if full and source.adapter else compute.dtype
    return load_model(source.base, dtype, compute.device, trainable=full)


def starting_model(
    context: Context, model: LanguageModel, source: ModelFolders, compute: Compute
) -> LanguageModel:
    """The model as the stage begins: with a fresh adapter, the adapter that it goes on with, or all weights."""
    settings = context.settings
    if settings.lora is False:
        if source.adapter:
            load_adapter(model, source.adapter)
            merge_lora(model)
            for parameter in model.parameters():
                parameter.requires_grad_(True)
            model.compute_dtype = getattr(torch, compute.dtype)
        return model
    if source.adapter is None:
        attach_lora(model, settings.lora, seed=context.recipe.seed)
        return model
    existing = adapter_settings(source.adapter)
    # The resolved recipe of a run writes defaults out, so a default asks for nothing.
    if settings.lora != LoraSettings() and not same_shape(existing, settings.lora):
        raise UserError(
            f"stage {context.name} goes on with an adapter of another shape: {existing}, not {settings.lora}",
            where=f"stages.{context.name}.lora",
            fix="leave lora out to go on with the adapter as it is, or put a merge stage between",
        )
    console.say(
        f"  going on with the adapter that is there: r {existing.r}, lora_alpha {existing.lora_alpha:g}"
    )
    load_adapter(model, source.adapter, trainable=True)
    return model


def same_shape(one: LoraSettings, other: LoraSettings) -> bool:
    """Whether an adapter made with one setting can go on with the other."""
    targets = [sorted(each.target_modules) for each in (one, other) if each.target_modules != "all-linear"]
    return (one.r, one.scaling) == (other.r, other.scaling) and (len(targets) < 2 or targets[0] == targets[1])


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
    """The held-out prompts that are answered before and after."""
    count = (
        min(context.settings.sample_count, REHEARSAL_ITEMS)
        if context.rehearse
        else context.settings.sample_count
    )
    return rows.prompts[:count]


def answer_tokens(context: Context) -> int:
    return REHEARSAL_TOKENS if context.rehearse else int(context.settings.sample_tokens)


def save(context: Context, model: LanguageModel, source: ModelFolders, tokenizer: Tokenizer) -> None:
    """Write `final/`, whole or not at all."""
    if not has_lora(model):
        save_model(model, context.stage.final, tokenizer)
        return

    def write(folder: Path) -> None:
        save_adapter(model, folder, source.base_name)
        tokenizer.save_pretrained(folder)

    publish_folder(context.stage.final, write)
