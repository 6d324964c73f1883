"""TRL's side of rl.py: its GRPOTrainer, at its defaults and tuned."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from measure import Clock, Job, peak_bytes, resident_bytes
from peers import ALPHA, RANK, StepClock
from peft import LoraConfig
from rl_reward import vowels
from transformers import AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from groundup.machine.process import keep_freed_memory

LEARNING_RATE = 1e-5
DEFAULT_MICRO = 8
"""What the config says by itself."""


class TimedGRPO(GRPOTrainer):
    """GRPOTrainer that notes how long answers take, and how long they are."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.rollout_seconds: list[float] = []
        self.answer_tokens: list[int] = []

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        found = super()._generate_and_score_completions(inputs)
        self.rollout_seconds.append(time.perf_counter() - began)
        self.answer_tokens.append(int(found["completion_mask"].sum()))
        return found


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step and of its rollout, tokens of its answers, memory."""
    torch.set_num_threads(job.threads)
    if job.settings.get("keep_memory"):
        keep_freed_memory()
    base, clock = resident_bytes(), Clock("TRL")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(job, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepClock(clock))
        trainer.train()
    assert torch.get_num_threads() == job.threads, "both sides run on the same number of threads"
    return {
        "seconds": clock.seconds,
        "rollout_seconds": trainer.rollout_seconds,
        "answer_tokens": trainer.answer_tokens,
        "history": [
            {k: v for k, v in line.items() if isinstance(v, float)} for line in trainer.state.log_history
        ],
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "settings": in_words(job.settings),
    }


def make_trainer(job: Job, folder: str) -> TimedGRPO:
    """`defaults` changes nothing but what a CPU, the shape of a step and a short run need."""
    chosen = job.settings
    group = chosen["prompts_a_step"] * chosen["samples"]
    micro = min(chosen.get("micro", DEFAULT_MICRO), group)
    arguments: dict[str, Any] = {
        **{
            "output_dir": folder,
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
        },
        **{"dataloader_pin_memory": False, "logging_steps": 1, "max_steps": chosen["steps"]},
        **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "shuffle_dataset": False},
        **{"num_generations": chosen["samples"], "max_completion_length": chosen["new_tokens"]},
        **{"per_device_train_batch_size": micro, "gradient_accumulation_steps": group // micro},
        "generation_kwargs": {"min_new_tokens": chosen["new_tokens"]},
    }
    if not chosen.get("defaults"):
        weights = "bfloat16" if chosen["dtype"] == "bfloat16" else "float32"
        arguments |= {
            "gradient_checkpointing": False,
            "bf16": chosen["dtype"] == "autocast",
            "model_init_kwargs": {"dtype": weights, "attn_implementation": chosen["attention"]},
            "cache_implementation": None if chosen["cache"] == "dynamic" else chosen["cache"],
        }
    prompts = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in chosen["prompts"]]
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    return TimedGRPO(
        str(job.model),
        reward_funcs=vowels,
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(job.model, padding_side="left"),
        peft_config=lora if job.lora else None,
    )


def in_words(chosen: dict[str, Any]) -> str:
    if chosen.get("defaults"):
        return f"its defaults: bf16 autocast, gradient checkpointing, {DEFAULT_MICRO} answers at once in the update"
    dtype = {"autocast": "float32 weights under bf16 autocast"}.get(chosen["dtype"], chosen["dtype"])
    words = [dtype, f"{chosen['attention']} attention", f"{chosen['cache']} cache", "no checkpointing"]
    words += ["freed memory kept"] * chosen["keep_memory"]
    return ", ".join([*words, f"{chosen['micro']} answers at once in the update"])
