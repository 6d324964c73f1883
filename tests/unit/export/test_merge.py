"""A merged folder gives the logits of base and adapter, and opens as any Hugging Face model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.export import merge_adapter
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize, load_model, save_adapter, save_model
from groundup.tokenizer import train_bpe

TOKENS = torch.arange(5, 40)


def write_base(folder: Path, dtype: torch.dtype, num_hidden_layers: int = 2) -> Path:
    tokenizer = train_bpe(["some words, 123 numbers and a few lines\n"] * 3, vocab_size=300)
    tokenizer.chat_template = "{{ messages[0].content }}"
    config = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 48,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    }
    model = initialize(BaseLLM(ModelConfig.from_hf(config)), seed=0)
    save_model(
        model, folder, tokenizer, generation_config={"temperature": 0.6, "do_sample": True}, dtype=dtype
    )
    return folder


def write_adapter(folder: Path, base: Path) -> tuple[Path, torch.Tensor]:
    """An adapter with factors that matter, and the logits of base and adapter."""
    model = load_model(base, torch.float32)
    attach_lora(model, LoraSettings(r=4, lora_alpha=8.0))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(std=0.1, generator=generator)
    save_adapter(model, folder, str(base))
    return folder, model.logits(TOKENS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_the_merged_model_is_base_and_adapter(tmp_path: Path, dtype: torch.dtype, tolerance: float):
    base = write_base(tmp_path / "base", dtype)
    adapter, attached_TV = write_adapter(tmp_path / "adapter", base)
    result = merge_adapter(adapter, base, tmp_path / "merged")

    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert stock.dtype == dtype  # as the base was stored
    with torch.no_grad():
        merged_TV = stock.float()(TOKENS[None]).logits[0]
    assert torch.allclose(merged_TV, attached_TV, atol=tolerance)
    assert not torch.allclose(load_model(base).logits(TOKENS), attached_TV, atol=2 * tolerance)
    assert result["max_logit_difference"] <= tolerance
    assert result["parameters"] == stock.num_parameters()
    assert result["dtype"] == str(dtype).removeprefix("torch.")


def test_the_folder_is_whole(tmp_path: Path):
    base = write_base(tmp_path / "base", torch.float32)
    adapter, _ = write_adapter(tmp_path / "adapter", base)
    merge_adapter(adapter, base, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text())["temperature"] == 0.6
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    assert tokenizer.decode(tokenizer("some words").input_ids, skip_special_tokens=True) == "some words"


def test_another_dtype_can_be_asked_for_and_its_rounding_is_shown(tmp_path: Path):
    base = write_base(tmp_path / "base", torch.float32)
    adapter, _ = write_adapter(tmp_path / "adapter", base)
    result = merge_adapter(adapter, base, tmp_path / "merged", dtype="bfloat16")
    assert result["dtype"] == "bfloat16"
    assert 1e-4 < result["max_logit_difference"] < 0.2


def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(tmp_path: Path):
    base = write_base(tmp_path / "base", torch.float32)
    adapter, _ = write_adapter(tmp_path / "adapter", base)
    smaller = write_base(tmp_path / "smaller", torch.float32, num_hidden_layers=1)
    with pytest.raises(UserError, match="does not fit"):
        merge_adapter(adapter, smaller, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
