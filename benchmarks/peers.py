"""TRL's side: its trainers on the same tokens, at their defaults and tuned."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from measure import Clock, Job, peak_bytes, resident_bytes
from peft import LoraConfig
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from groundup.batch import Record

LEARNING_RATE = 5e-5
RANK, ALPHA = 16, 32
DEFAULTS: dict[str, Any] = {"defaults": True}
"""What the configs say by themselves: float32 weights under bfloat16 autocast, checkpointing, SDPA."""


class StepClock(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.step()


class Counting:
    """A collator that counts the true tokens, and those that the loss sees, of what passes through."""

    def __init__(self, collate: Callable[[Any], dict[str, Any]]) -> None:
        self._collate = collate
        self.tokens = self.scored = self.places = 0

    def __call__(self, examples: Any) -> dict[str, Any]:
        batch = self._collate(examples)
        ids = batch["input_ids"]
        self.tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else ids.numel()
        self.places += ids.numel()
        seen = batch["completion_mask"] if "completion_mask" in batch else batch["labels"] != -100
        self.scored += int(seen.sum())
        return batch


class PreparedDPO(DPOTrainer):
    """DPOTrainer over rows that are tokens already, and that times its reference."""

    reference_seconds = 0.0
    fake_reference = False

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *rest: Any, **named: Any) -> Dataset:
        if self.fake_reference:
            zeros = [0.0] * len(dataset)
            return dataset.add_column("ref_chosen_logps", zeros).add_column("ref_rejected_logps", zeros)
        began = time.perf_counter()
        found = super()._precompute_ref_logps(dataset, *rest, **named)
        self.reference_seconds = time.perf_counter() - began
        return found


class SearchingDPO(PreparedDPO):
    """For choosing settings: steps alone, with a reference of zeros."""

    fake_reference = True


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step, losses, memory; for a precomputed reference its seconds over all rows."""
    torch.set_num_threads(job.threads)
    name = "TRL defaults" if job.settings.get("defaults") else "TRL tuned"
    rows = dataset_of(job.kind, job.steps)
    base = resident_bytes()
    clock = Clock(name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(job, rows, folder)
        counting = Counting(trainer.data_collator)
        trainer.data_collator = counting
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepClock(clock))
        trainer.train()
    assert torch.get_num_threads() == job.threads, "both sides run on the same number of threads"
    logged = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "seconds": clock.seconds,
        "history": [{k: v for k, v in line.items() if isinstance(v, float)} for line in logged],
        "tokens_seen": counting.tokens,
        "scored_seen": counting.scored,
        "places": counting.places,
        "reference_total_seconds": getattr(trainer, "reference_seconds", 0.0),
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "settings": settings_in_words(job),
    }


def dataset_of(kind: str, steps: Sequence[Sequence[Record]]) -> Dataset:
    """The steps' rows, in order, in the columns that TRL's own tokenization makes."""
    make = pair_row if kind == "dpo" else sequence_row
    return Dataset.from_list([make(record) for record in itertools.chain.from_iterable(steps)])


def pair_row(record: Record) -> dict[str, Any]:
    chosen, rejected = record.chains
    prompt = int(np.argmax(chosen.scored))
    return {
        "prompt_ids": chosen.token[:prompt].tolist(),
        "chosen_ids": chosen.token[prompt:].tolist(),
        "rejected_ids": rejected.token[prompt:].tolist(),
    }


def sequence_row(record: Record) -> dict[str, Any]:
    (chain,) = record.chains
    labels = np.where(chain.scored, chain.token, -100)
    return {"input_ids": chain.token.tolist(), "labels": labels.tolist()}


def make_trainer(job: Job, rows: Dataset, folder: str, searching: bool = False) -> Any:
    """A trainer by the job's settings; `defaults` changes nothing but what a CPU and a short run need."""
    chosen, batch = job.settings, len(job.steps[0])
    arguments: dict[str, Any] = {
        **{
            "output_dir": folder,
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
        },
        **{"dataloader_pin_memory": False, "logging_steps": 1, "max_steps": len(job.steps)},
        **{"train_sampling_strategy": "sequential", "max_length": None},
        **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
        "per_device_train_batch_size": batch,
    }
    if not chosen.get("defaults"):
        micro = min(chosen["micro"], batch)
        arguments |= {
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": batch // micro,
            "gradient_checkpointing": False,
            "bf16": chosen["autocast"],
            "model_init_kwargs": {"dtype": chosen["weights"], "attn_implementation": chosen["attention"]},
        }
        if job.kind == "dpo":
            arguments |= {"precompute_ref_log_probs": True, "precompute_ref_batch_size": micro}
        elif chosen.get("padding_free"):
            arguments["padding_free"] = True
    common: dict[str, Any] = {
        "train_dataset": rows,
        "processing_class": AutoTokenizer.from_pretrained(job.model),
        "peft_config": LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        if job.lora
        else None,
    }
    if job.kind == "dpo":
        trainer = SearchingDPO if searching else PreparedDPO
        return trainer(str(job.model), args=DPOConfig(**arguments), **common)
    return SFTTrainer(str(job.model), args=SFTConfig(**arguments), **common)


def settings_in_words(job: Job) -> str:
    chosen, batch = job.settings, len(job.steps[0])
    if chosen.get("defaults"):
        return f"its defaults: bf16 autocast, gradient checkpointing, SDPA, {batch} rows at once"
    micro = min(chosen["micro"], batch)
    words = [
        f"{chosen['weights']} weights" + (" under bf16 autocast" if chosen["autocast"] else ""),
        f"{chosen['attention']} attention, no checkpointing, {micro} of {batch} rows at once",
    ]
    if job.kind == "dpo":
        words.append("precomputed reference")
    elif chosen.get("padding_free"):
        words.append("padding-free: its packing with exactly the step's rows")
    return ", ".join(words)
