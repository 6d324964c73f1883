"""A peer's best settings on this machine: one setting after another, each value tried once on a short step."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from measure import Clock, Job, progress

from groundup.machine.measure import has_bfloat16

Settings = dict[str, Any]
TRIED_RECORDS = {"dpo": 2, "sft": 2, "pretrain": 4}
TRL_LORA_DTYPES = [
    {"weights": "float32", "autocast": True},
    {"weights": "bfloat16", "autocast": True},
    {"weights": "bfloat16", "autocast": False},
    {"weights": "float32", "autocast": False},
]
FULL_DTYPES = [{"weights": "float32", "autocast": True}, {"weights": "float32", "autocast": False}]
"""Trained weights stay float32, as ours do: in bfloat16 small updates would vanish."""
ATTENTIONS = [{"attention": "eager"}]


def run(job: Job) -> dict[str, Any]:
    """`chosen`, and the seconds of everything tried, on the first records of the warm-up step."""
    torch.set_num_threads(job.threads)
    records = TRIED_RECORDS[job.kind]
    small = replace(job, steps=(job.steps[0][:records],))
    peer = job.settings["peer"]
    seconds_of = {"trl": trl_seconds, "trainer": trainer_seconds, "plain": plain_seconds}[peer]
    dtypes = usable(TRL_LORA_DTYPES if job.lora else FULL_DTYPES)
    # Equal blocks need no padding, so many at once is where to begin; rows of unlike lengths begin one by one.
    first, then = (records, 1) if job.kind == "pretrain" else (1, records)
    groups: list[list[Settings]] = [dtypes, [{"micro": then}]]
    if peer != "plain":  # which has SDPA only
        groups.append(ATTENTIONS)
    if job.kind == "sft":
        groups.append([{"padding_free": True, "micro": records}])
    best: Settings = {"attention": "sdpa", "micro": first} | dtypes[0]
    seconds_of(replace(small, steps=(job.steps[0][:1],), settings=best))  # loads libraries and kernels
    tried: list[dict[str, Any]] = []
    best_seconds = attempt(seconds_of, small, best, tried)
    for group in groups:
        for change in group:
            if all(best.get(key) == value for key, value in change.items()):
                continue
            if (seconds := attempt(seconds_of, small, best | change, tried)) < best_seconds:
                best, best_seconds = best | change, seconds
    return {"chosen": best, "tried": tried}


def usable(dtypes: list[Settings]) -> list[Settings]:
    """Without bfloat16 where the processor only emulates it: one such step takes minutes."""
    if has_bfloat16():
        return dtypes
    return [each for each in dtypes if each == {"weights": "float32", "autocast": False}]


def attempt(
    seconds_of: Callable[[Job], float], job: Job, settings: Settings, tried: list[dict[str, Any]]
) -> float:
    """Seconds of one step; infinite for settings that do not work."""
    try:
        seconds = seconds_of(replace(job, settings=settings))
    except Exception as error:
        progress(f"{settings}: {type(error).__name__}: {error}")
        tried.append({**settings, "error": str(error)[:200]})
        return float("inf")
    gc.collect()
    progress(f"tuning: {settings}: {seconds:.2f} s")
    tried.append({**settings, "seconds": round(seconds, 3)})
    return seconds


def trl_seconds(job: Job) -> float:
    from peers import StepClock, dataset_of, make_trainer
    from transformers import PrinterCallback

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(job, dataset_of(job.kind, job.steps), folder, searching=True)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepClock(clock))
        trainer.train()
    return clock.seconds[0]


def trainer_seconds(job: Job) -> float:
    from pretraining import run_trainer

    return float(run_trainer(job)["seconds"][0])


def plain_seconds(job: Job) -> float:
    import plain

    return float(plain.run(job)["seconds"][0])
