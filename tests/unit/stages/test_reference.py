"""Which model is the reference, and that nothing else is ever taken for it."""

import json

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.eval import logps_by_record
from groundup.machine.plan import Plan
from groundup.model import (
    BaseLLM,
    ModelConfig,
    attach_lora,
    initialize,
    lora_state,
    merge_lora,
    save_adapter,
    save_model,
)
from groundup.stages import reference
from groundup.stages.models import ModelFolders, find_model
from groundup.stages.reference import Reference, choose_reference, reference_logps, rows_hash, weights_hash
from groundup.store import files

PLAN = Plan("cpu", "float32", "", {}, 1, "shared", "", 64, False, 0, 0, 1, "")
START, OFF = Reference("start", "as it begins"), Reference("off", "its adapter switched off")


def model_of(size, seed=0):
    raw = {"model_type": "llama", "vocab_size": size, "hidden_size": 16, "intermediate_size": 24}
    raw |= {"num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.3}
    return initialize(BaseLLM(ModelConfig.from_hf(raw)), seed)


def adapted(model, seed=1):
    """As if an adapter had been trained."""
    attach_lora(model, LoraSettings(r=2), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in lora_state(model).items():
        if ".lora_B" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


def records(count=4, first=0):
    made = []
    for i in range(first, first + count):
        chains = tuple(
            Chain(np.array([1, 2 + i, side, 7], dtype=np.int32), np.arange(4) >= 2) for side in (3, 5)
        )
        made.append(Record(i, chains))
    return made


def rows_of(made):
    return lambda layout: iter(pack_step(made, 64, layout))


def asked(stage, which, model, made=None, **plan):
    from dataclasses import replace

    made = made or records()
    return reference_logps(stage, which, model, replace(PLAN, **plan), rows_of(made), len(made))


@pytest.fixture
def stage(context):
    return context({"dpo": {"from": "model", "data": "rows.jsonl"}}, "dpo")


@pytest.fixture
def computed(monkeypatch):
    """How often log-probabilities were computed."""
    calls = []
    real = reference.record_logps
    monkeypatch.setattr(reference, "record_logps", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_the_same_content_is_computed_once(stage, computed):
    first = asked(stage, START, model_of(20))
    assert asked(stage, START, model_of(20)) == first and len(computed) == 1
    assert first == logps_by_record(model_of(20), rows_of(records())("shared"), "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.lm_head.weight.data[3, 5].add_(1e-3),
        lambda model: model.model.norm.weight.data[0].mul_(1.001),
    ],
)
def test_one_weight_that_changed_is_another_reference(stage, computed, change):
    """A stage before was trained again, or the folder's content was exchanged under the same name."""
    first = asked(stage, START, model_of(20))
    other = model_of(20)
    change(other)
    again = asked(stage, START, other)
    assert len(computed) == 2 and again != first
    assert again == logps_by_record(other, rows_of(records())("shared"), "cpu")


def test_other_rows_dtype_or_config_are_asked_again(stage, computed):
    model = model_of(20)
    asked(stage, START, model)
    asked(stage, START, model, records(first=1))
    asked(stage, START, model, records(3))
    asked(stage, START, model, dtype="bfloat16")
    wider = BaseLLM(
        ModelConfig.from_hf(model.config.to_hf() | {"rope_theta": 500.0, "rope_parameters": None})
    )
    wider.load_state_dict(model.state_dict())
    asked(stage, START, wider)
    assert len(computed) == 5


def test_an_adapter_is_part_of_the_reference_unless_it_is_off(stage, computed):
    """A policy that goes on with an adapter begins as base and adapter; switched off it is the base."""
    base = asked(stage, START, model_of(20))
    policy = adapted(model_of(20))
    begins, off = asked(stage, START, policy), asked(stage, OFF, policy)
    assert off == base and len(computed) == 2, "the base is known already"
    assert begins != base
    assert all(layer.active for layer in policy.modules() if hasattr(layer, "active")), "and on again"


def test_a_merged_policy_is_its_own_beginning_and_has_nothing_to_switch_off(stage, computed):
    policy = adapted(model_of(20))
    begins = asked(stage, START, policy)
    merged = merge_lora(policy)
    assert asked(stage, START, merged)[0] == pytest.approx(begins[0], abs=1e-4)
    with pytest.raises(AssertionError, match="no adapter"):
        asked(stage, OFF, merged)


def test_a_trained_policy_never_reads_or_becomes_the_reference(stage, computed):
    """In memory it is the same object; what it says has moved."""
    policy = model_of(20).requires_grad_(True)
    first = asked(stage, START, policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05)
    assert asked(stage, START, policy) != first and len(computed) == 2
    assert asked(stage, START, model_of(20)) == first and len(computed) == 2


def test_a_damaged_cache_is_computed_again(stage, computed, capsys):
    first = asked(stage, START, model_of(20))
    (path,) = stage.run.reference_logps.glob("*.json")
    kept = path.read_text()
    value = json.loads(kept)["logps"]["0"][0]
    for broken in (kept[:40], kept.replace(str(value), str(value + 1)), "[]", '{"logps": {}}'):
        path.write_text(broken)
        assert asked(stage, START, model_of(20)) == first
        assert "is damaged" in capsys.readouterr().err
    assert len(computed) == 5


def test_a_reference_that_says_nan_is_an_error(stage):
    model = model_of(20)
    model.lm_head.weight.data[:] = float("nan")
    with pytest.raises(UserError, match="row 0 a log-probability that is not a finite number"):
        asked(stage, START, model)


def test_hashes_see_names_shapes_and_cuts():
    model = model_of(20)
    assert weights_hash(model) == weights_hash(model_of(20)) != weights_hash(model_of(20, seed=1))
    rows = rows_of(records())
    assert rows_hash(rows("shared")) == rows_hash(rows("shared")) != rows_hash(rows("packed"))


# Which one is meant.


@pytest.fixture
def folders(tmp_path, tokenizer):
    """A base model, an adapter on it, and the same weights in a second place."""
    base = model_of(len(tokenizer))
    for name in ("base", "again"):
        save_model(base, tmp_path / name, tokenizer)
    save_adapter(adapted(base), tmp_path / "adapter", str(tmp_path / "base"))
    return tmp_path


@pytest.mark.parametrize(
    ("start", "settings", "kind"),
    [
        ("base", {}, "off"),
        ("base", {"lora": False}, "start"),
        ("adapter", {}, "start"),
        ("adapter", {"lora": False}, "start"),
        ("adapter", {"reference": "base"}, "off"),
        ("adapter", {"reference": "base", "lora": False}, "folder"),
        ("adapter", {"reference": "adapter"}, "start"),
        ("base", {"reference": "adapter"}, "folder"),
        ("base", {"reference": "base"}, "off"),
        ("base", {"reference": "base", "lora": False}, "start"),
        ("base", {"reference": "again"}, "folder"),
        ("base", {"loss": "simpo"}, None),
        ("base", {"loss": "orpo"}, None),
    ],
)
def test_the_plan_decides(context, folders, tokenizer, monkeypatch, start, settings, kind):
    monkeypatch.chdir(folders)
    made = context({"dpo": {"from": start, "data": "rows.jsonl", **settings}}, "dpo")
    chosen = choose_reference(made, find_model(made, start), tokenizer)
    assert (chosen and chosen.kind) == kind
    assert chosen is None or chosen.folders is None or isinstance(chosen.folders, ModelFolders)
    assert chosen is None or chosen.said


def test_a_second_model_is_loaded_asked_and_let_go(context, folders, tokenizer, monkeypatch):
    """Base and adapter, though the policy in memory is the base."""
    monkeypatch.chdir(folders)
    made = context({"dpo": {"from": "base", "data": "rows.jsonl", "reference": "adapter"}}, "dpo")
    chosen = choose_reference(made, find_model(made, "base"), tokenizer)
    size = len(tokenizer)
    found = asked(made, chosen, model_of(size))
    expected = logps_by_record(adapted(model_of(size)), rows_of(records())("shared"), "cpu")
    assert found[2] == pytest.approx(expected[2], abs=1e-5)
    assert found[2] != pytest.approx(
        logps_by_record(model_of(size), rows_of(records())("shared"), "cpu")[2], abs=1e-2
    )


def test_a_reference_with_another_tokenizer_is_refused(context, folders, tokenizer, monkeypatch):
    from groundup.tokenizer import train_bpe

    monkeypatch.chdir(folders)
    other = train_bpe(["other words, otherwise cut 0123 " * 9], 290)
    save_model(model_of(len(tokenizer)), folders / "foreign", other)
    made = context({"dpo": {"from": "base", "data": "rows.jsonl", "reference": "foreign"}}, "dpo")
    with pytest.raises(UserError, match="has another tokenizer than base"):
        choose_reference(made, find_model(made, "base"), tokenizer)


def test_what_is_kept_says_what_it_is(stage):
    asked(stage, START, model_of(20))
    (path,) = stage.run.reference_logps.glob("*.json")
    kept = files.read_json(path)
    assert {"weights", "rows", "dtype", "layout", "device", "reference", "check", "logps"} == kept.keys()
