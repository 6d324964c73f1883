"""Groundup's side, by the very functions that its stages call: what is measured is what a run does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Clock, Job, forget_peak, peak_bytes, progress, resident_bytes

from groundup.batch import Record, Stream, segment_tokens
from groundup.config.schema import (
    DataSettings,
    DpoSettings,
    LoraSettings,
    PretrainSettings,
    Recipe,
    SftSettings,
)
from groundup.engine import Exactness
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import learning_rate_at, make_optimizer
from groundup.eval import record_logps
from groundup.machine import probe
from groundup.machine.plan import Plan
from groundup.model import ModelConfig, load_model
from groundup.objective import LanguageModeling, means
from groundup.stages.context import Context
from groundup.stages.models import ModelFolders
from groundup.stages.posttrain import material_of
from groundup.stages.preference import with_reference
from groundup.stages.training import (
    Compute,
    Material,
    choose_compute,
    choose_layout,
    make_plan,
    step_rows,
)
from groundup.stages.weights import base_model, starting_model
from groundup.store import Run

LEARNING_RATE = 5e-5
RANK, ALPHA = 16, 32.0
STAGE = "train"
PROFILED_OPERATORS = 25


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step, losses, memory, and the plan; for DPO also the seconds of each step's reference."""
    with tempfile.TemporaryDirectory() as folder:
        context = context_of(job, Path(folder))
        with context.stage.lock():
            result = measured(context, job)
    return result


def measured(context: Context, job: Job) -> dict[str, Any]:
    base = resident_bytes()
    compute = choose_compute(context, ModelConfig.from_folder(job.model))
    assert torch.get_num_threads() == job.threads, "both sides run on the same number of threads"
    model, exact = model_of(context, job, compute)
    material = material_from(context, job, exact.layout)
    plan = make_plan(context, model, compute, material, exact.reason)
    reference: list[float] = []
    if job.kind == "dpo":
        material, reference = with_timed_reference(context, model, material, plan, len(job.steps))
    loading = peak_bytes()
    forget_peak()
    result = train_steps(context, model, material, plan, len(job.steps))
    result["training_peak_bytes"] = peak_bytes()
    result["peak_bytes"] = max(loading, peak_bytes())
    if job.side == "profile":
        result["profile"] = profiled(context, model, material, plan, len(job.steps) - 1)
    return result | {
        "reference_seconds": reference,
        "base_bytes": base,
        "planned_bytes": plan.memory_bytes,
        "row_tokens": plan.row_tokens,
        "dtype": plan.dtype,
        "layout": plan.layout,
        "settings": f"{plan.dtype}, rows of at most {plan.row_tokens} tokens, {plan.layout} layout, as planned",
    }


def context_of(job: Job, folder: Path) -> Context:
    """A recipe of one stage, as `groundup sft` or `groundup dpo` makes it."""
    common: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "max_steps": len(job.steps),
        "dtype": job.settings.get("dtype", "auto"),
    }
    settings: DpoSettings | PretrainSettings | SftSettings
    if job.kind == "pretrain":
        length = len(job.steps[0][0].chains[0].token) - 1
        batch: dict[str, Any] = {"max_length": length, "batch_tokens": length * len(job.steps[0])}
        settings = PretrainSettings(
            from_="shards", optim="adamw_torch", weight_decay=0.0, adam_beta2=0.999, **batch, **common
        )
    else:
        longest = max(len(chain.token) for step in job.steps for record in step for chain in record.chains)
        common |= {"max_length": longest, "batch_size": len(job.steps[0])}
        lora: Any = LoraSettings(r=RANK, lora_alpha=ALPHA) if job.lora else False
        kind = DpoSettings if job.kind == "dpo" else SftSettings
        data = DataSettings(path=["rows"])
        settings = kind(from_=str(job.model), data=data, lora=lora, **common)
    recipe = Recipe(name="benchmark", stages={STAGE: settings})
    return Context(recipe, STAGE, Run.open(folder / "run"), probe())


def model_of(context: Context, job: Job, compute: Compute) -> tuple[Any, Exactness]:
    """The model as the stage begins, of whichever class the stage takes it, and the layout that is exact for it."""
    longest = context.settings.max_length
    if job.kind == "pretrain":
        model = load_model(job.model, compute.dtype, compute.device, trainable=True)
        return model, choose_layout(context, model, longest)
    source = ModelFolders(job.model, str(job.model), None)
    base = base_model(context, source, compute)
    exact = choose_layout(context, base, longest)
    return starting_model(context, base, source, compute), exact


def material_from(context: Context, job: Job, layout: str) -> Material:
    """The job's rows as a stage's material, laid so that the stage's own order of rows is the job's order."""
    wanted = [record for step in job.steps for record in step]

    def placed(stream: Stream) -> list[Record]:
        order = np.concatenate([stream.records_of(step) for step in range(len(job.steps))])
        assert sorted(order) == list(range(len(wanted)))
        records: list[Record] = list(wanted)
        for place, record in zip(order, wanted, strict=True):
            records[place] = replace(record, index=int(place))
        return records

    if job.kind != "pretrain":
        ones = np.ones(len(wanted), dtype=np.int64)
        stream = Stream(ones, context.settings.batch_size, context.recipe.seed)
        return material_of(context, placed(stream), layout)
    sizes = np.array([segment_tokens(record, layout) for record in wanted])
    stream = Stream(sizes, context.settings.batch_tokens, context.recipe.seed)
    records = placed(stream)
    longest = int(sizes.max())
    return Material(stream, sizes, lambda ids: [records[i] for i in ids], LanguageModeling(), layout, longest)


def with_timed_reference(
    context: Context, model: Any, material: Material, plan: Plan, steps: int
) -> tuple[Material, list[float]]:
    """What `reference_logps` of the stage does, timed step by step."""
    clock = Clock("ours, reference")
    found: dict[int, tuple[float, ...]] = {}
    for step in range(steps):
        rows = step_rows(context, material, plan, step)
        found |= record_logps(
            model, rows, device=plan.device, total=context.settings.batch_size, title="Reference"
        )
        clock.step()
    plain = material.records

    def records(ids: Sequence[int]) -> list[Record]:
        return with_reference(plain(ids), found)

    return replace(material, records=records), clock.seconds


def train_steps(context: Context, model: Any, material: Material, plan: Plan, steps: int) -> dict[str, Any]:
    """The body of `engine.loop.train` without its logging and saving."""
    optimizer = make_optimizer(model, context.settings)
    history: list[dict[str, float]] = []
    tokens = scored = 0
    clock = Clock("ours")
    for step in range(steps):
        clock.start()
        rows = [row.to(plan.device) for row in step_rows(context, material, plan, step)]
        rate = learning_rate_at(step, steps, context.settings)
        metrics = [backward(model, material.objective, row) for row in rows]
        grad_norm = update(model, optimizer, rate, context.settings.max_grad_norm)
        history.append(means(metrics) | {"grad_norm": grad_norm})
        clock.step(history[-1]["loss"])
        tokens += sum(row.sequence_tokens for row in rows)
        scored += sum(len(row.target_N) for row in rows)
    return {"seconds": clock.seconds, "history": history, "tokens_seen": tokens, "scored_seen": scored}


def profiled(context: Context, model: Any, material: Material, plan: Plan, step: int) -> list[dict[str, Any]]:
    """The last step once more under PyTorch's profiler: operators by their own time."""
    from torch.profiler import ProfilerActivity, profile

    progress("ours: profiling one step")
    optimizer = make_optimizer(model, context.settings)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        for row in step_rows(context, material, plan, step):
            backward(model, material.objective, row)
        update(model, optimizer, 0.0, context.settings.max_grad_norm)
    events = sorted(watched.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {"operator": event.key, "share": event.self_cpu_time_total / total, "calls": event.count}
        for event in events[:PROFILED_OPERATORS]
    ]
