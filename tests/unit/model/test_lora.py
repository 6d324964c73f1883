"""Targets, start, merge."""

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import BaseLLM, ModelConfig, attach_lora, has_lora, initialize, lora_state, merge_lora
from groundup.model.lora import lora_layers
from groundup.objective import LanguageModeling

RAW = {
    "model_type": "qwen2",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
TOKEN = torch.arange(9)


def tiny(dtype=torch.float32) -> BaseLLM:
    return initialize(BaseLLM(ModelConfig.from_hf(RAW), dtype), seed=0)


def moved(model: BaseLLM) -> BaseLLM:
    """As if trained: B is no longer zero."""
    for name, tensor in lora_state(model).items():
        if ".lora_B" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


def test_a_new_adapter_changes_nothing_and_is_reproducible():
    model = tiny()
    before, names = model.logits(TOKEN), set(dict(model.named_parameters()))
    attached = attach_lora(model, LoraSettings(r=4), seed=5)
    assert len(attached) == 14
    assert torch.equal(model.logits(TOKEN), before)
    assert names <= set(dict(model.named_parameters())), "the base's parameters keep their names"
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(lora_state(model))
    again, other = tiny(), tiny()
    attach_lora(again, LoraSettings(r=4), seed=5)
    attach_lora(other, LoraSettings(r=4), seed=6)
    name = "model.layers.1.mlp.down_proj.lora_A.weight"
    assert torch.equal(lora_state(model)[name], lora_state(again)[name])
    assert not torch.equal(lora_state(model)[name], lora_state(other)[name])


def test_the_base_is_stored_in_the_compute_dtype_and_the_factors_in_float32():
    model = tiny(torch.bfloat16)
    attach_lora(model, LoraSettings(r=4))
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if ".lora_" in name else torch.bfloat16), name


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_equals_attached(rslora):
    model = tiny()
    before = model.logits(TOKEN)
    settings = LoraSettings(r=4, use_rslora=rslora)
    attach_lora(model, settings)
    attached = moved(model).logits(TOKEN)
    assert (attached - before).abs().max() > 0.1
    names = set(dict(tiny().named_parameters()))
    merge_lora(model)
    assert not has_lora(model) and set(dict(model.named_parameters())) == names
    torch.testing.assert_close(model.logits(TOKEN), attached, atol=1e-5, rtol=1e-5)


def test_targets_are_whole_or_last_names():
    wanted = ["q_proj", "layers.1.mlp.up_proj"]
    assert attach_lora(tiny(), LoraSettings(target_modules=wanted)) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


@pytest.mark.parametrize(("target", "hint"), [("qproj", "q_proj"), ("lm_head", "linear layers are")])
def test_a_target_that_names_nothing(target, hint):
    model = tiny()
    with pytest.raises(UserError, match=hint):
        attach_lora(model, LoraSettings(target_modules=["q_proj", target]))
    assert not has_lora(model)


def test_gradients_of_the_factors_follow_from_the_merged_weights():
    """W = W0 + scaling B A, so dA = scaling Bᵀ dW and dB = scaling dW Aᵀ: a whole model, in float64."""
    record = Record(0, tuple(Chain(token, np.arange(12) > 4) for token in np.arange(24).reshape(2, 12) % 31))
    (row,) = pack_step([record], 99, "packed")
    lora = tiny(torch.float64)
    attach_lora(lora, LoraSettings(r=3, lora_alpha=5.0, use_rslora=True), seed=1)
    moved(lora).double()
    merged = tiny(torch.float64).double().requires_grad_(True)
    for name, layer in lora_layers(lora).items():
        update = layer.scaling * layer.lora_B.weight @ layer.lora_A.weight
        merged.get_submodule(name).weight.data += update.detach()
    losses = [LanguageModeling().loss(model(row), row)[0] for model in (lora, merged)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-12, rtol=1e-12)
    for loss in losses:
        loss.backward()
    for name, layer in lora_layers(lora).items():
        whole = layer.scaling * merged.get_submodule(name).weight.grad
        for factor, expected in (
            (layer.lora_A, layer.lora_B.weight.T @ whole),
            (layer.lora_B, whole @ layer.lora_A.weight.T),
        ):
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(factor.weight.grad, expected, atol=1e-10, rtol=1e-9)
