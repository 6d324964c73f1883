"""Adapters both ways: plain PEFT opens ours, we open PEFT's, and the logits are the same."""

import json

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import adapter_settings, attach_lora, load_adapter, load_model, lora_state, save_adapter

TOKEN = torch.arange(3, 30)


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def their_logits(model):
    with torch.no_grad():
        return model.eval()(TOKEN[None]).logits[0]


@pytest.mark.parametrize(
    "settings",
    [
        LoraSettings(r=4),
        LoraSettings(r=3, lora_alpha=5.0, use_rslora=True, target_modules=["q_proj", "down_proj"]),
        LoraSettings(r=2, target_modules=["model.layers.1.self_attn.v_proj"]),
    ],
    ids=["all-linear", "rslora", "one layer"],
)
def test_peft_opens_ours(base, settings, tmp_path):
    model = load_model(base)
    names = attach_lora(model, settings, seed=1)
    for name, tensor in lora_state(model).items():
        if ".lora_B" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    save_adapter(model, tmp_path / "adapter", str(base))
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = their_logits(plain)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    torch.testing.assert_close(their_logits(theirs), model.logits(TOKEN), atol=1e-4, rtol=1e-4)
    assert (their_logits(theirs) - before).abs().max() > 0.1
    again = load_model(base)
    assert load_adapter(again, tmp_path / "adapter") == names
    assert torch.equal(again.logits(TOKEN), model.logits(TOKEN))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def their_adapter(base, folder, **options):
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ["q_proj", "v_proj"],
            "use_rslora": True,
            "lora_dropout": 0.1,
        },
        {"r": 2, "lora_alpha": 6, "target_modules": r".*\.0\.mlp\.(up|gate)_proj"},
        {"r": 2, "target_modules": ["up_proj"], "layers_to_transform": [1]},
    ],
    ids=["all-linear", "rslora", "pattern", "some layers"],
)
def test_we_open_theirs(base, options, tmp_path):
    theirs = their_adapter(base, tmp_path / "adapter", **options)
    ours = load_model(base)
    before = ours.logits(TOKEN)
    load_adapter(ours, tmp_path / "adapter", trainable=True)
    torch.testing.assert_close(ours.logits(TOKEN), their_logits(theirs), atol=1e-4, rtol=1e-4)
    assert (ours.logits(TOKEN) - before).abs().max() > 0.1
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == set(lora_state(ours))
    save_adapter(ours, tmp_path / "again", str(base))
    again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "again")
    torch.testing.assert_close(their_logits(again), their_logits(theirs))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"up_proj": 3}}, "rank_pattern"),
        ({"alpha_pattern": {"up_proj": 3}}, "alpha_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ],
)
def test_options_that_would_be_ignored_are_refused(base, options, name, tmp_path):
    their_adapter(base, tmp_path, target_modules=["up_proj"], **options)
    with pytest.raises(UserError, match=name):
        load_adapter(load_model(base), tmp_path)


def test_pissa_is_refused(base, tmp_path):
    their_adapter(base, tmp_path, target_modules=["up_proj"])
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(UserError, match="pissa"):
        adapter_settings(tmp_path)


def test_adapters_that_do_not_fit(base, tmp_path):
    their_adapter(base, tmp_path, target_modules=["lm_head", "up_proj"], ensure_weight_tying=False)
    with pytest.raises(UserError, match="does not fit"):
        load_adapter(load_model(base), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load_adapter(load_model(base), tmp_path)
