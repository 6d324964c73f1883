"""The same rows, models and hyperparameters for TRL's trainers and for our loop; and what they logged, side by side."""

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import TrainSettings
from groundup.engine import Offline, train
from groundup.eval import packed_rows, record_logps
from groundup.model import load_adapter, load_model
from groundup.store import Run
from groundup.store.files import read_jsonl

CLOSE = {"rel": 0, "abs": 1e-4}
BATCH = 4
BETA = 0.1
DPO_NAMES = [
    *("loss", "grad_norm", "logps/chosen", "logps/rejected"),
    *("rewards/chosen", "rewards/rejected", "rewards/margins"),
]


def config(kind, folder, **options):
    common = {
        **{"output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": [], "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True},
        **{"train_sampling_strategy": "sequential", "max_length": None},
        "per_device_train_batch_size": BATCH,
    }
    return kind(**common | options)


def sft_trainer(model, tokenizer, rows, folder, **options):
    arguments = config(SFTConfig, folder, **options)
    return SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def dpo_trainer(model, reference, tokenizer, rows, folder, **options):
    arguments = config(DPOConfig, folder, beta=BETA, **options)
    rows = Dataset.from_list(rows)
    return DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=tokenizer)


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def write_adapter(base, folder, fresh=False):
    """An adapter that already says something, both factors random; or a `fresh` one, whose B is zero."""
    torch.manual_seed(1)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=fresh
    )
    peft.get_peft_model(plain(base), settings).save_pretrained(folder)
    return folder


def two_models(kind, base, adapter):
    """Theirs and ours with the same weights, to train whole ("full") or by an adapter ("lora")."""
    theirs = plain(base)
    if kind == "full":
        return theirs, load_model(base, trainable=True)
    ours = load_model(base)
    load_adapter(ours, adapter, trainable=True)
    return peft.PeftModel.from_pretrained(theirs, adapter, is_trainable=True), ours


def record_of(index, *sequences):
    """A record of (token ids, which are scored) chains."""
    chains = []
    for token, scored in sequences:
        scored = np.array(scored, dtype=bool)
        scored[0] = False  # nothing stands before the first token
        chains.append(Chain(np.array(token, dtype=np.int32), scored))
    return Record(index, tuple(chains))


def sft_records(trainer):
    """TRL's own rows as ours."""
    return [
        record_of(index, (row["input_ids"], np.array(row["labels"]) != -100))
        for index, row in enumerate(trainer.train_dataset)
    ]


def dpo_records(trainer):
    return [
        record_of(
            index,
            *(
                (row["prompt_ids"] + row[side], [False] * len(row["prompt_ids"]) + [True] * len(row[side]))
                for side in ("chosen_ids", "rejected_ids")
            ),
        )
        for index, row in enumerate(trainer.train_dataset)
    ]


def logps(model, records, row_tokens=150):
    """By record; several rows of several records each, pairs sharing their prompt."""
    rows = list(packed_rows(records, max(row_tokens, len(records)), "shared"))
    assert 1 < len(rows) < len(records)
    return record_logps(model, rows, device="cpu", total=len(records), title="")


def with_reference(records, model, row_tokens=150):
    found = logps(model, records, row_tokens)
    return [Record(one.index, one.chains, {"ref_logp": found[one.index]}) for one in records]


def our_steps(model, objective, records, row_tokens, settings, folder, steps):
    """Our loop over TRL's order of rows; a logged line a step."""
    stage = Run.open(folder / "ours").stage("train")

    def rows_of(step):
        order = [(step * BATCH + i) % len(records) for i in range(BATCH)]
        return pack_step([records[i] for i in order], row_tokens)

    train(
        model,
        objective,
        Offline(rows_of),
        total_steps=steps,
        epoch_at=lambda step: step * BATCH / len(records),
        settings=settings,
        stage=stage,
        device="cpu",
        evaluate=dict,
        title="",
    )
    return [line for line in read_jsonl(stage.metrics) if "loss" in line]


def settings_and_options(scheduler, steps, learning_rate=1e-3):
    """The same hyperparameters in both words. Weight decay shows the groups, the low norm shows the clipping."""
    common = {
        "learning_rate": learning_rate,
        "lr_scheduler_type": scheduler,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
    }
    return TrainSettings(**common, warmup_ratio=0.0, logging_steps=1), common | {"max_steps": steps}


def assert_same_history(ours, trainer, names, steps, close=CLOSE):
    """Every step's numbers, within `close` as pytest.approx takes it."""
    theirs = [line for line in trainer.state.log_history if "loss" in line]
    assert len(ours) == len(theirs) == steps
    for mine, other in zip(ours, theirs):
        expected = {name: other[name] for name in names}
        assert {name: mine[name] for name in names} == pytest.approx(expected, **close), mine["step"]
        assert mine["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-9)
    assert ours[0]["grad_norm"] > 0.5 and max(abs(line["loss"] - ours[0]["loss"]) for line in ours) > 0.05


def assert_same_weights(ours, theirs, atol=1e-4):
    other = {
        name.removeprefix("base_model.model.").replace(".default", "").replace(".base_layer", ""): parameter
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert trained.keys() == other.keys()
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter, other[name], rtol=0, atol=atol)
