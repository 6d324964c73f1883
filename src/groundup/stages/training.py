"""What the training stages share: the plan, the steps' rows, and the run through the loop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from groundup import console
from groundup.batch import Batch, Record, Stream, pack_step, segment_tokens
from groundup.config.schema import TrainSettings
from groundup.engine import Exactness, Offline, Source, probe, train
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import make_optimizer
from groundup.errors import UserError
from groundup.eval import evaluate_records
from groundup.machine import choose_dtype, measure_dtypes
from groundup.machine.estimate import Workload, checkpoint_bytes, planned_memory_bytes
from groundup.machine.plan import Plan, check_disk, choose_rows
from groundup.machine.process import prepare_process
from groundup.model import BaseLLM, LanguageModel, ModelConfig, PolicyValue, StockConfig, StockLLM
from groundup.objective import Objective
from groundup.stages.context import REHEARSAL_STEPS, Context
from groundup.stages.reference import weights_hash
from groundup.store.files import read_json, read_jsonl, write_json

LOOKED_AT_STEPS = 50
TIMED_STEPS = 5
TIMED_SECONDS = 8.0
SHARE_FOR_STEPS = 0.92  # of max_minutes; the rest is evaluation and saving
GEMM_TOKENS = 1024

_probed: dict[tuple[Any, ...], Exactness] = {}


class Work(Protocol):
    """What a plan must know of that on which a stage trains."""

    @property
    def layout(self) -> str: ...

    @property
    def sizes(self) -> Sized: ...

    @property
    def chain_tokens(self) -> int:
        """Tokens of the longest sequence."""
        ...

    @property
    def longest_tokens(self) -> int:
        """Tokens that a row must hold at least."""
        ...

    def largest_step_tokens(self) -> int:
        """Tokens of the largest step: a row need not be longer."""
        ...

    def steps_for(self, epochs: float) -> int: ...

    def seconds_a_step(self, model: nn.Module, plan: Plan, settings: TrainSettings) -> float:
        """Measured, by steps that change nothing."""
        ...


@dataclass(frozen=True)
class Material:
    """Rows that a stage trains on, before the machine has its say."""

    stream: Stream
    sizes: np.ndarray
    """Tokens of each record in a row."""
    records: Callable[[Sequence[int]], list[Record]]
    objective: Objective
    layout: str
    """How a record is laid out in a row; its size there depends on it."""
    chain_tokens: int
    """Tokens of the longest sequence."""

    @property
    def longest_tokens(self) -> int:
        return int(self.sizes.max())

    def largest_step_tokens(self) -> int:
        """Of the first steps: a row need not be longer."""
        return max(int(self.sizes[self.stream.records_of(step)].sum()) for step in range(LOOKED_AT_STEPS))

    def steps_for(self, epochs: float) -> int:
        return self.stream.steps_for(epochs)

    def seconds_a_step(self, model: nn.Module, plan: Plan, settings: TrainSettings) -> float:
        """Median time of whole steps with a learning rate of zero: nothing depends on them but the plan."""
        optimizer = make_optimizer(model, settings)
        times = []
        for step in range(TIMED_STEPS + 1):
            began = time.perf_counter()
            for row in self.rows_of(step, plan.row_tokens):
                backward(model, self.objective, row.to(plan.device))
            update(model, optimizer, 0.0, settings.max_grad_norm)
            times.append(time.perf_counter() - began)
            if len(times) > 2 and sum(times) > TIMED_SECONDS:
                break
        return float(np.median(times[1:]))  # the first one warms up

    def rows_of(self, step: int, row_tokens: int) -> list[Batch]:
        return pack_step(self.records(self.stream.records_of(step).tolist()), row_tokens, self.layout)

    def longest_ids(self, row_tokens: int) -> list[int]:
        """The longest records that fill one row: what a rehearsal tries."""
        order = np.argsort(-self.sizes, kind="stable")
        count = max(1, int(np.searchsorted(np.cumsum(self.sizes[order]), row_tokens, side="right")))
        return order[:count].tolist()


@dataclass(frozen=True)
class Compute:
    """Device and dtype, chosen before the model is loaded."""

    device: str
    dtype: str
    reason: str
    gflops: dict[str, float]


def choose_compute(context: Context, config: ModelConfig | StockConfig) -> Compute:
    """The dtype of an existing plan, the recipe's, or the one measured to be faster on the model's own shapes."""
    device = context.machine.device
    prepare_process(device, context.machine.cores)
    if context.stage.plan.exists():
        plan = read_json(context.stage.plan)
        if plan["device"] != device:
            raise UserError(
                f"this stage was begun on {plan['device']}, and this machine has only {device}",
                where=str(context.stage.plan),
                why="a plan is made once, so that a run that goes on computes the same numbers",
                fix="go on where it was begun, or remove the stage's folder to train it here",
            )
        prepare_process(device, plan["threads"])
        return Compute(plan["device"], plan["dtype"], plan["dtype_reason"], plan["gflops"])
    if context.settings.dtype != "auto":
        return Compute(device, context.settings.dtype, "the recipe says so", {})
    shapes = [
        (GEMM_TOKENS, config.hidden_size, config.num_attention_heads * config.head_dim),
        (GEMM_TOKENS, config.hidden_size, config.intermediate_size),
        (GEMM_TOKENS, config.intermediate_size, config.hidden_size),
    ]
    measured = measure_dtypes(shapes, seconds=1.0, device=device)
    dtype, reason = choose_dtype(measured)
    return Compute(device, dtype, reason, measured)


def choose_layout(context: Context, model: LanguageModel, max_length: int) -> Exactness:
    """The layout of an existing plan, or the fastest one that is exact for this model, before it has an adapter."""
    if context.stage.plan.exists():
        plan = read_json(context.stage.plan)
        found = Exactness(plan["layout"], plan["layout_reason"])
    else:
        # Stages of one run often begin with the same weights: they are asked once.
        about = (type(model), weights_hash(model), model.compute_dtype, model.device, max_length)
        if about not in _probed:
            _probed[about] = probe(model, max_length)
        found = _probed[about]
    if isinstance(model, StockLLM):
        model.layout = found.layout
    return found


def workload_of(model: LanguageModel | PolicyValue, dtype: str, frozen_copies: int = 0) -> Workload:
    """The model's numbers that memory depends on. frozen_copies: further models of its size that are not trained."""
    config = model.config
    return Workload(
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        query_size=config.num_attention_heads * config.head_dim,
        key_size=config.num_key_value_heads * config.head_dim,
        heads=config.num_attention_heads,
        compute_bytes=2 if dtype == "bfloat16" else 4,
        own_layers=isinstance(model.policy if isinstance(model, PolicyValue) else model, BaseLLM),
        copied_parameters=frozen_copies * sum(p.numel() for p in model.parameters()),
    )


def make_plan(
    context: Context,
    model: LanguageModel | PolicyValue,
    compute: Compute,
    material: Work,
    layout_reason: str = "",
    reference: str = "",
    frozen_copies: int = 0,
) -> Plan:
    """The stage's plan: made once, written down, and from then on read."""
    stage, settings = context.stage, context.settings
    if stage.plan.exists():
        plan = Plan(**read_json(stage.plan))
        model.recompute = plan.recompute
        return plan
    work = workload_of(model, compute.dtype, frozen_copies)
    step_tokens = material.largest_step_tokens()
    longest = material.longest_tokens
    wish = None if settings.gradient_checkpointing == "auto" else settings.gradient_checkpointing
    row_tokens, recompute = choose_rows(
        work, context.machine, compute.device, longest, material.chain_tokens, step_tokens, wish
    )
    model.recompute = recompute
    check_disk(shutil.disk_usage(stage.root).free, work, settings.save_total_limit, str(stage.root))
    plan = Plan(
        device=compute.device,
        dtype=compute.dtype,
        dtype_reason=compute.reason,
        gflops=compute.gflops,
        threads=torch.get_num_threads(),
        layout=material.layout,
        layout_reason=layout_reason,
        row_tokens=row_tokens,
        recompute=recompute,
        memory_bytes=planned_memory_bytes(work, row_tokens, material.chain_tokens, recompute),
        checkpoint_bytes=checkpoint_bytes(work),
        total_steps=0,
        total_steps_reason="",
        reference=reference,
    )
    steps, reason = _total_steps(context, model, material, plan)
    plan = replace(plan, total_steps=steps, total_steps_reason=reason)
    write_json(stage.plan, plan)
    return plan


def _total_steps(
    context: Context, model: LanguageModel | PolicyValue, material: Work, plan: Plan
) -> tuple[int, str]:
    settings = context.settings
    if context.rehearse:
        return REHEARSAL_STEPS, "a rehearsal"
    steps = settings.max_steps or material.steps_for(settings.num_train_epochs)
    reason = "max_steps" if settings.max_steps else f"num_train_epochs: {settings.num_train_epochs:g}"
    if settings.max_minutes:
        seconds = material.seconds_a_step(model, plan, settings)
        fitting = max(1, int(settings.max_minutes * 60 * SHARE_FOR_STEPS / seconds))
        if fitting < steps:
            return fitting, f"max_minutes: {settings.max_minutes:g} at {seconds:.2f} s a step, measured"
    return steps, reason


def step_records(context: Context, material: Material, plan: Plan, step: int) -> list[Record]:
    """The records of one optimizer step; a rehearsal's steps are its longest ones."""
    if context.rehearse:
        return material.records(material.longest_ids(plan.row_tokens))
    return material.records(material.stream.records_of(step).tolist())


def step_rows(context: Context, material: Material, plan: Plan, step: int) -> list[Batch]:
    """The rows of one optimizer step."""
    return pack_step(step_records(context, material, plan, step), plan.row_tokens, material.layout)


def row_tokens_for(plan: Plan, layout: str, records: Sequence[Record]) -> int:
    """The plan's rows, or longer ones where a record needs them: a held-out one, or in another layout."""
    return max(plan.row_tokens, *(segment_tokens(record, layout) for record in records))


def say_plan(plan: Plan, model: nn.Module, material: Work) -> None:
    """What is about to happen, in a few plain lines."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.say(f"  {trained:,} weights to train, on {len(material.sizes):,} rows")
    console.say(f"  {plan.dtype}: {plan.dtype_reason}")
    console.say(f"  layout {plan.layout}: {plan.layout_reason}")
    if plan.reference:
        console.say(f"  reference: {plan.reference}")
    memory = f"about {plan.memory_bytes / 1e9:.1f} GB of memory"
    if plan.recompute:
        memory += ", with activations computed again in the backward"
    console.say(f"  {plan.total_steps:,} steps ({plan.total_steps_reason}); {memory}")


def evaluate_on(
    model: LanguageModel, records: Sequence[Record], objective: Objective, plan: Plan
) -> dict[str, float]:
    """The objective's metrics on held-out records, in the plan's layout."""
    return evaluate_records(
        model,
        records,
        objective,
        row_tokens=plan.row_tokens,
        layout=plan.layout,
        device=plan.device,
        title="Evaluating",
    )


def run_training(
    context: Context,
    model: LanguageModel,
    plan: Plan,
    material: Material,
    evaluate: Callable[[], dict[str, float]],
    title: str,
) -> dict[str, Any]:
    """Train on the material's rows; what the result says of it."""
    source = Offline(lambda step: step_rows(context, material, plan, step))
    return train_on(
        context, model, plan, material.objective, source, material.stream.epoch_at, evaluate, title
    )


def train_on(
    context: Context,
    model: nn.Module,
    plan: Plan,
    objective: Objective,
    source: Source,
    epoch_at: Callable[[int], float],
    evaluate: Callable[[], dict[str, float]],
    title: str,
) -> dict[str, Any]:
    """Train, and what the result says of it: metrics before and after on held-out rows, time, tokens."""
    outcome = train(
        model,
        objective,
        source,
        total_steps=plan.total_steps,
        epoch_at=epoch_at,
        settings=context.settings,
        stage=context.stage,
        device=plan.device,
        evaluate=evaluate,
        title=title,
    )
    held_out = [
        line for line in read_jsonl(context.stage.metrics) if any(key.startswith("eval_") for key in line)
    ]
    before, after = ({k: v for k, v in line.items() if k != "step"} for line in (held_out[0], held_out[-1]))
    return {
        "before": before,
        "after": after,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "tokens": outcome.tokens,
        "tokens_per_second": outcome.tokens / outcome.seconds,
        "skipped_steps": outcome.skipped_steps,
        "plan": plan,
    }
