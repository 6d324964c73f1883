"""Policy and value on one backbone: adapters take turns, and each loss moves its own."""

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.model import (
    BaseLLM,
    ModelConfig,
    PolicyValue,
    attach_lora,
    copy_adapter,
    initialize,
    load_adapter,
    lora_state,
    save_adapter,
    using_adapter,
)
from groundup.model.value import VALUE

LOGP, ENTROPY = frozenset({"logp"}), frozenset({"logp", "entropy_seen"})
VALUES = frozenset({VALUE})


def tiny(lora=True, **changes) -> BaseLLM:
    raw = {
        **{"model_type": "qwen2", "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24},
        **{
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
        },
    }
    model = initialize(BaseLLM(ModelConfig.from_hf(raw | changes)), seed=0)
    if lora:
        attach_lora(model, LoraSettings(r=4), seed=5)
        jolt(model)
    return model


def jolt(model):
    """Adapters that say something."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))


def row():
    token = np.arange(1, 9, dtype=np.int32)
    chains = tuple(
        Chain(np.concatenate([token[:4], token[k:]]).astype(np.int32), np.arange(4 + 8 - k) >= 4)
        for k in (4, 6)
    )
    return pack_step([Record(0, chains)], 64)[0]


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("recompute", [False, True])
def test_each_loss_moves_its_own_adapter_and_no_other(recompute):
    """Also where the backward runs after another adapter was active, and computes the layers again."""
    model = PolicyValue(tiny())
    model.recompute = recompute
    with torch.no_grad():
        model.value_head.weight.fill_(0.5)
    policy, value = model(row(), ENTROPY), model(row(), VALUES)
    value.value_N.square().sum().backward()
    moved = {name for name, p in trained(model).items() if p.grad is not None and p.grad.any()}
    assert moved and all(f".others.{VALUE}." in name or name.startswith("value_head") for name in moved)
    for parameter in model.parameters():
        parameter.grad = None
    policy.logp_N.sum().backward()
    moved = {name for name, p in trained(model).items() if p.grad is not None and p.grad.any()}
    assert moved and not any(".others." in name or name.startswith("value_head") for name in moved)


@pytest.mark.parametrize("adapter", [VALUE, None, "own"])
def test_a_recomputed_backward_is_that_of_the_adapter_that_was_active(adapter):
    found = []
    for recompute in (False, True):
        model = tiny()
        copy_adapter(model, VALUE, trainable=True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if f".others.{VALUE}." in name:
                    parameter.mul_(1.5)
        model.embedding_VD.requires_grad_(True)
        model.recompute = recompute
        with using_adapter(model, adapter):
            loss = model(row(), LOGP).logp_N.sum()
        loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_the_value_is_zero_at_first_and_float32():
    for lora in (True, False):
        value_N = PolicyValue(tiny(lora))(row(), VALUES).value_N
        assert value_N.dtype == torch.float32 and not value_N.any() and len(value_N) == 6


def test_where_all_weights_are_trained_one_forward_serves_both():
    model = PolicyValue(tiny(lora=False))
    assert not model.separate
    stats = model(row(), ENTROPY | VALUES)
    alone = model(row(), ENTROPY)
    assert torch.equal(stats.logp_N, alone.logp_N) and torch.equal(stats.entropy_N, alone.entropy_N)
    assert stats.value_N is not None and stats.value_N.requires_grad


def test_the_value_begins_as_the_policy_and_the_policy_does_not_feel_it():
    policy = tiny()
    before = policy(row(), LOGP).logp_N.detach()
    model = PolicyValue(policy)
    assert model.separate
    with using_adapter(policy, VALUE):
        assert torch.equal(policy(row(), LOGP).logp_N, before)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".others." in name:
                parameter.zero_()
    assert torch.equal(policy(row(), LOGP).logp_N, before)


def test_switched_off_the_adapter_is_not_there():
    model, bare = tiny(), tiny(lora=False)
    with using_adapter(model, None):
        assert torch.allclose(model(row(), LOGP).logp_N, bare(row(), LOGP).logp_N)
    assert not torch.allclose(model(row(), LOGP).logp_N, bare(row(), LOGP).logp_N)


def test_further_adapters_are_not_saved(tmp_path):
    model = tiny()
    names = set(lora_state(model))
    copy_adapter(model, "reference", trainable=False)
    PolicyValue(model)
    assert set(lora_state(model)) == names
    save_adapter(model, tmp_path / "adapter", "base")
    again = tiny(lora=False)
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(again.logits(torch.arange(5)), model.logits(torch.arange(5)))


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_a_temperature_divides_the_logits(trained_head, softcap):
    model = tiny(lora=not trained_head)
    model.head.rule = model.head.rule._replace(softcap=softcap)
    if trained_head:
        model.requires_grad_(True)
    one = row()
    model.temperature = 0.6
    read = model.read(one).detach().requires_grad_()
    found = model.say(read, one.target_N, frozenset({"logp", "entropy", "lse"}))
    (found.logp_N.sum() + 0.3 * found.entropy_N.sum()).backward()

    plain = read.detach().clone().requires_grad_()
    weight = model.head.weight.detach()
    logits = plain @ weight.T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    table = (logits / 0.6).log_softmax(-1)
    logp = table.gather(1, one.target_N[:, None])[:, 0]
    entropy = -(table.exp() * table).sum(-1)
    (logp.sum() + 0.3 * entropy.sum()).backward()
    assert torch.allclose(found.logp_N, logp, atol=1e-5) and torch.allclose(
        found.entropy_N, entropy, atol=1e-5
    )
    assert torch.allclose(read.grad, plain.grad, atol=1e-5)
