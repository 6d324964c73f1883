"""Groundup's side of rl.py, by the very functions that its stage `grpo` calls."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import Clock, Job, forget_peak, peak_bytes, resident_bytes

from groundup.config.policy import GrpoSettings
from groundup.config.rewards import RewardSettings
from groundup.config.schema import DataSettings, EvalDataSettings, LoraSettings, Recipe
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import make_optimizer
from groundup.machine import probe
from groundup.model import read_config
from groundup.objective import means, step_total, total
from groundup.rollout.rewards import load_rewards
from groundup.stages.context import Context
from groundup.stages.models import ModelFolders
from groundup.stages.policy import rollouts_of, shape_of
from groundup.stages.questions import read_questions
from groundup.stages.rollouts import RolloutWork
from groundup.stages.training import choose_compute, choose_layout, make_plan
from groundup.stages.weights import base_model, starting_model
from groundup.store import Run
from groundup.tokenizer import load_tokenizer

LEARNING_RATE = 1e-5
RANK, ALPHA = 16, 32.0
STAGE = "train"
REWARD = Path(__file__).with_name("rl_reward.py")


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step and of its rollout, tokens of its answers, memory, and the plan."""
    with tempfile.TemporaryDirectory() as folder:
        context = context_of(job, Path(folder))
        with context.stage.lock(), load_rewards(context.settings.rewards) as rewards:
            return measured(context, job, rewards)


def context_of(job: Job, folder: Path) -> Context:
    """A recipe of one stage, as `groundup grpo` makes it; the held-out rows are not asked."""
    chosen = job.settings
    for name, prompts in (("train", chosen["prompts"]), ("heldout", ["Who are you?"])):
        lines = [json.dumps({"prompt": [{"role": "user", "content": prompt}]}) + "\n" for prompt in prompts]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    lora: Any = LoraSettings(r=RANK, lora_alpha=ALPHA) if job.lora else False
    settings = GrpoSettings(
        from_=str(job.model),
        data=DataSettings(path=[str(folder / "train.jsonl")]),
        eval_data=EvalDataSettings(path=[str(folder / "heldout.jsonl")]),
        rewards=[RewardSettings(function=f"{REWARD}:vowels")],
        lora=lora,
        batch_size=chosen["prompts_a_step"],
        num_generations=chosen["samples"],
        max_completion_length=chosen["new_tokens"],
        max_steps=chosen["steps"],
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        dtype=chosen.get("dtype", "auto"),
        log_completions_steps=0,
    )
    recipe = Recipe(name="benchmark", stages={STAGE: settings})
    return Context(recipe, STAGE, Run.open(folder / "run"), probe())


def measured(context: Context, job: Job, rewards: Any) -> dict[str, Any]:
    base_bytes = resident_bytes()
    settings, source = context.settings, ModelFolders(job.model, str(job.model), None)
    tokenizer = load_tokenizer(job.model)
    questions = read_questions(context, tokenizer)
    compute = choose_compute(context, read_config(job.model))
    assert torch.get_num_threads() == job.threads, "both sides run on the same number of threads"
    base = base_model(context, source, compute)
    exact = choose_layout(context, base, settings.max_prompt_length + settings.max_completion_length)
    policy = starting_model(context, base, source, compute)
    shape = shape_of(context, exact.layout, compute.device)
    rollouts = rollouts_of(context, policy, tokenizer, questions, rewards, None, shape)
    # No stop token: every answer has all of its tokens, as on the other side.
    rollouts = replace(rollouts, decoding=replace(rollouts.decoding, stop_tokens=()))
    work = RolloutWork(rollouts)
    plan = make_plan(context, rollouts.model, compute, work, exact.reason)
    loading = peak_bytes()
    forget_peak()
    result = train_steps(context, work.planned(plan), plan.device, job.settings["steps"])
    return result | {
        "peak_bytes": max(loading, peak_bytes()),
        "training_peak_bytes": peak_bytes(),
        "base_bytes": base_bytes,
        "planned_bytes": plan.memory_bytes,
        "settings": f"{plan.dtype}, rows of at most {plan.row_tokens} tokens, {plan.layout} layout, as planned",
    }


def train_steps(context: Context, rollouts: Any, device: str, steps: int) -> dict[str, Any]:
    """The body of `engine.loop.train` without its logging and saving."""
    optimizer = make_optimizer(rollouts.model, context.settings)
    clock = Clock("ours")
    rollout_seconds: list[float] = []
    answer_tokens: list[int] = []
    history: list[dict[str, float]] = []
    for step in range(steps):
        clock.start()
        began = time.perf_counter()
        phase = rollouts.phase(step, {})
        rollout_seconds.append(time.perf_counter() - began)
        rows = [row.to(device) for row in phase.rows_of(step)]
        metrics = step_total(backward(rollouts.model, rollouts.objective, row) for row in rows)
        grad_norm = update(rollouts.model, optimizer, LEARNING_RATE, context.settings.max_grad_norm)
        history.append(means([total([phase.metrics, metrics])]) | {"grad_norm": grad_norm})
        clock.step(history[-1].get("reward"))
        answer_tokens.append(sum(int(row.reads_Q.sum()) for row in rows))
    return {
        "seconds": clock.seconds,
        "rollout_seconds": rollout_seconds,
        "answer_tokens": answer_tokens,
        "history": history,
    }
