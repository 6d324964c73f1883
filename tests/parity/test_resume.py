"""A run that was interrupted, or killed, and goes on is the run that never stopped: bit by bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stream, pack_step
from groundup.config import build_recipe
from groundup.config.schema import DpoSettings, LoraSettings, TrainSettings
from groundup.engine import Offline, loop, train
from groundup.eval import evaluate_records
from groundup.model import attach_lora, load_model, save_adapter, save_model
from groundup.objective import LanguageModeling
from groundup.stages import run, training
from groundup.store import Run, Stage
from groundup.store.files import read_json, read_jsonl
from groundup.tokenizer import load_tokenizer

# All that may differ between two runs is what a clock says.
TIMES = {"elapsed_seconds", "tokens_per_second", "loading_share", "seconds"}
FLOAT32_WINS = {"float32": 100.0, "bfloat16": 50.0}
BFLOAT16_WINS = {"float32": 50.0, "bfloat16": 100.0}


@pytest.fixture(autouse=True)
def same_process():
    """A stage sets the number of threads, and strictness, for its process."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same_stage(one: Stage, other: Stage):
    """Metrics, result, plan, and every output to its bytes."""
    assert timeless(read_jsonl(one.metrics)) == timeless(read_jsonl(other.metrics))
    for kind in ("plan", "result"):
        if getattr(one, kind).exists():
            assert timeless(read_json(getattr(one, kind))) == timeless(read_json(getattr(other, kind)))
    outputs = [
        path.relative_to(one.root)
        for folder in (one.final, one.data)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    assert any(path.suffix == ".safetensors" for path in outputs)
    for path in outputs:
        assert (one.root / path).read_bytes() == (other.root / path).read_bytes(), path


# The engine with a real model.


def made_up(index, vocabulary):
    token = np.random.default_rng(index).integers(0, vocabulary, 6 + index % 9).astype(np.int32)
    return Record(index, (Chain(token, np.arange(len(token)) > index % 4),))


def fit(chat_folder, stage, *, lora, interrupt_at=None):
    """Ten steps over nine records, four a step; a ctrl-C comes while step number `interrupt_at` is under way."""
    model = load_model(chat_folder, trainable=not lora)
    if lora:
        attach_lora(model, LoraSettings(r=4), seed=3)
    records = [made_up(index, model.config.vocab_size) for index in range(12)]
    stream = Stream(np.ones(9, dtype=np.int64), 4, seed=5)

    def rows_of(step):
        if step == interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return pack_step([records[i] for i in stream.records_of(step)], 20)

    def evaluate():
        return evaluate_records(
            model, records[9:], LanguageModeling(), row_tokens=20, layout="shared", device="cpu", title=""
        )

    train(
        model,
        LanguageModeling(),
        Offline(rows_of),
        total_steps=10,
        epoch_at=stream.epoch_at,
        settings=TrainSettings(
            learning_rate=1e-2,
            logging_steps=4,
            eval_steps=3,
            save_steps=6,
            weight_decay=0.1,
            warmup_ratio=0.2,
        ),
        stage=stage,
        device="cpu",
        evaluate=evaluate,
        title="",
    )
    if lora:
        save_adapter(model, stage.final, "base")
    else:
        save_model(model, stage.final, load_tokenizer(chat_folder))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_an_interrupted_training(chat_folder, tmp_path, lora):
    """Once between two logged lines, once right behind a checkpoint."""
    whole, cut = Run.open(tmp_path / "whole").stage("sft"), Run.open(tmp_path / "cut").stage("sft")
    fit(chat_folder, whole, lora=lora)
    for step in (4, 6):
        with pytest.raises(KeyboardInterrupt):
            fit(chat_folder, cut, lora=lora, interrupt_at=step)
        assert cut.checkpoints()[-1].name == f"checkpoint-{step + 1:06d}"
    fit(chat_folder, cut, lora=lora)
    losses = [line["loss"] for line in read_jsonl(cut.metrics) if "loss" in line]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert_same_stage(whole, cut)


# A whole recipe.

QUESTIONS = ["France", "two and two", "Hello", "one word", "naïve people", "the capital", "of course", "four"]
KILLED = """
import json, os, signal, sys
from pathlib import Path
from groundup.config import build_recipe
from groundup.engine import loop
from groundup.stages import run, training

def save_and_die(folder, state, save=loop.save_checkpoint, **what):
    save(folder, state=state, **what)
    if state.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

loop.save_checkpoint = save_and_die
training.measure_dtypes = lambda *args, **options: json.loads(sys.argv[3])
run.run_recipe(build_recipe(json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture
def recipe(chat_folder, tmp_path):
    """LoRA SFT, then DPO from it: eight steps each of rows that run on across the epochs."""

    def turn(role, content):
        return {"role": role, "content": content}

    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    asked = [turn("user", f"What is {topic}{sign}") for topic in QUESTIONS for sign in "?!"]
    conversations = [
        {"messages": [ask, turn("assistant", f"It is {i}, of course")]} for i, ask in enumerate(asked)
    ]
    pairs = [
        {
            "prompt": [ask],
            "chosen": [turn("assistant", f"{i}")],
            "rejected": [turn("assistant", f"Hello {i}, " * 3)],
        }
        for i, ask in enumerate(asked)
    ]
    common = {
        **{"holdout": 0.25, "batch_size": 5, "max_steps": 8, "sample_count": 2, "sample_tokens": 4},
        **{"logging_steps": 2, "eval_steps": 4, "save_steps": 3, "learning_rate": 5e-3, "lora": {"r": 4}},
    }
    sft = {"kind": "sft", "from": str(chat_folder), "data": write("chat.jsonl", conversations), **common}
    dpo = {"kind": "dpo", "from": "sft", "data": write("pairs.jsonl", pairs), **common, "dtype": "float32"}
    return {"name": "resumed", "seed": 7, "stages": {"sft": sft, "dpo": dpo}}


def measure(monkeypatch, rates):
    monkeypatch.setattr(training, "measure_dtypes", lambda *args, **options: rates)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_recipe_killed_in_sft_and_interrupted_in_dpo(recipe, tmp_path, monkeypatch):
    """SIGKILL while a checkpoint is written; then, on a machine that measures otherwise, ctrl-C; then on to the end."""
    monkeypatch.setattr(run, "write_report", lambda run: None)
    measure(monkeypatch, FLOAT32_WINS)
    run.run_recipe(build_recipe(recipe), tmp_path / "whole")
    whole, cut = Run.open(tmp_path / "whole"), Run.open(tmp_path / "cut")

    command = [sys.executable, "-c", KILLED, json.dumps(recipe), str(cut.root), json.dumps(FLOAT32_WINS)]
    died = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert [path.name for path in cut.stage("sft").checkpoints()] == ["checkpoint-000003"]
    assert not cut.stage("sft").manifest.exists()

    measure(monkeypatch, BFLOAT16_WINS)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(loop, "learning_rate_at", interrupting_dpo(loop.learning_rate_at))
        with pytest.raises(KeyboardInterrupt):
            run.run_recipe(build_recipe(recipe), cut.root)
    assert cut.stage("sft").manifest.exists()
    assert cut.stage("dpo").checkpoints()[-1].name == "checkpoint-000005"
    finished = (cut.stage("sft").final / "adapter_model.safetensors").stat().st_mtime_ns

    run.run_recipe(build_recipe(recipe), cut.root)
    for name in ("sft", "dpo"):
        assert read_json(cut.stage(name).plan)["dtype"] == "float32"
        assert len([line for line in read_jsonl(cut.stage(name).metrics) if "loss" in line]) == 4
        assert_same_stage(whole.stage(name), cut.stage(name))
    assert (cut.stage("sft").final / "adapter_model.safetensors").stat().st_mtime_ns == finished
    margins = [
        line["eval_rewards/margins"] for line in read_jsonl(whole.stage("dpo").metrics) if "eval_loss" in line
    ]
    assert margins[0] == 0.0 and margins[-1] > 0.0


def interrupting_dpo(rate_at):
    def wrapped(step, total_steps, settings):
        if isinstance(settings, DpoSettings) and step == 4:
            signal.raise_signal(signal.SIGINT)
        return rate_at(step, total_steps, settings)

    return wrapped
