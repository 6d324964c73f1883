"""Pretraining's peers: transformers.Trainer on equal-length blocks, and the plain loop of `plain.py`."""

from __future__ import annotations

import itertools
import tempfile
from typing import Any

import plain
import torch
from datasets import Dataset
from measure import Clock, Job, peak_bytes, resident_bytes
from peers import Counting, StepClock
from transformers import (
    AutoModelForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

LEARNING_RATE = 5e-5


def run(job: Job) -> dict[str, Any]:
    return plain.run(job) if job.side == "plain" else run_trainer(job)


def run_trainer(job: Job) -> dict[str, Any]:
    """Seconds of each step, losses and memory of transformers.Trainer from the same weights as ours."""
    torch.set_num_threads(job.threads)
    records = itertools.chain.from_iterable(job.steps)
    blocks = [record.chains[0].token.tolist() for record in records]
    rows = Dataset.from_list([{"input_ids": block, "labels": block} for block in blocks])
    base = resident_bytes()
    clock = Clock("transformers.Trainer")
    counting = Counting(default_data_collator)
    batch = len(job.steps[0])
    micro = min(job.settings["micro"], batch)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            **{"output_dir": folder, "use_cpu": True, "report_to": [], "save_strategy": "no"},
            **{"disable_tqdm": True, "dataloader_pin_memory": False, "logging_steps": 1},
            **{"max_steps": len(job.steps), "train_sampling_strategy": "sequential"},
            **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "optim": "adamw_torch_fused"},
            **{"bf16": job.settings["autocast"], "per_device_train_batch_size": micro},
            "gradient_accumulation_steps": batch // micro,
        }
        arguments = TrainingArguments(**options)
        model = AutoModelForCausalLM.from_pretrained(
            job.model, dtype=torch.float32, attn_implementation=job.settings["attention"]
        )
        trainer = Trainer(
            model, arguments, train_dataset=rows, data_collator=counting, callbacks=[StepClock(clock)]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    assert torch.get_num_threads() == job.threads, "both sides run on the same number of threads"
    logged = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "seconds": clock.seconds,
        "history": [{"loss": line["loss"]} for line in logged],
        "tokens_seen": counting.tokens,
        "scored_seen": counting.scored
        - len(blocks),  # a block's first token is a label that nothing predicts
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "settings": in_words(job),
    }


def in_words(job: Job) -> str:
    dtype = "float32 weights under bf16 autocast" if job.settings["autocast"] else "float32"
    attention, micro = job.settings["attention"], min(job.settings["micro"], len(job.steps[0]))
    blocks = f"{micro} of {len(job.steps[0])} blocks at once"
    return f"{dtype}, {attention} attention, fused AdamW, no checkpointing, {blocks}"
