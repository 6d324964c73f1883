"""The scalar head, padding that no text ends with, and what a reward model's folder is not."""

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import (
    BaseLLM,
    ModelConfig,
    attach_lora,
    attach_score,
    check_answers,
    choose_padding,
    initialize,
    load_adapter,
    load_model,
    read_config,
    save_adapter,
    save_model,
    save_reward_model,
    using_adapter,
)
from groundup.model.reward import check_classifier, score_tokens, stock_classifier
from groundup.tokenizer import train_bpe

VALUE = frozenset({"value"})


@pytest.fixture(scope="module")
def tokenizer():
    made = train_bpe(["a small tokenizer for reward models 0123\n" * 9], 290)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def model_of(tokenizer, seed=0, **changes):
    raw = {"model_type": "qwen3", "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24}
    raw |= {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "initializer_range": 0.3,
        **changes,
    }
    return initialize(BaseLLM(ModelConfig.from_hf(raw)), seed)


def sequences(*texts):
    chains = [Chain(np.array([*text, -1], dtype=np.int32), np.array([*text, -1]) < 0) for text in texts]
    return Record(0, tuple(chains))


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_a_value_is_that_of_the_text_by_itself(tokenizer, layout):
    model = model_of(tokenizer)
    attach_score(model, seed=1)
    texts = ([5, 6, 7, 8, 9], [5, 6, 7], [5, 6, 10, 11])
    (row,) = pack_step([sequences(*texts)], 100, layout)
    alone = [score_tokens(model, torch.tensor(text)) for text in texts]
    with torch.no_grad():
        assert model(row, VALUE).value_N.tolist() == pytest.approx(alone, abs=1e-5)
    full = stock_classifier(model, 0)
    assert [score_tokens(full, torch.tensor(text)) for text in texts] == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 0.01


def test_values_and_log_probabilities_come_together(tokenizer):
    model = model_of(tokenizer)
    attach_score(model, seed=1)
    token = np.arange(4, 12, dtype=np.int32)
    (row,) = pack_step([Record(0, (Chain(token, np.arange(8) > 2),))], 100)
    both, one = model(row, frozenset({"value", "logp"})), model(row)
    assert torch.equal(both.logp_N, one.logp_N) and one.value_N is None and len(both.value_N) == 5


def test_only_the_head_and_what_was_asked_for_are_trained(tokenizer):
    full = model_of(tokenizer).requires_grad_(True)
    attach_score(full, seed=1)
    assert not full.lm_head.weight.requires_grad, "nothing reads it"
    assert full.model.embed_tokens.weight.requires_grad and full.score.weight.requires_grad
    tied = model_of(tokenizer, tie_word_embeddings=True).requires_grad_(True)
    attach_score(tied, seed=1)
    assert tied.lm_head.weight.requires_grad, "it is the embedding"
    adapted = model_of(tokenizer)
    attach_lora(adapted, LoraSettings(r=2))
    attach_score(adapted, seed=1)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert "score.weight" in trained and all(name == "score.weight" or ".lora_" in name for name in trained)


def test_padding_is_a_token_that_no_text_ends_with(tokenizer):
    start, end = (tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>"))
    tokenizer.pad_token = "<|im_end|>"  # SmolLM2's, where it also ends a turn
    choose_padding(tokenizer, len(tokenizer), {end})
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.padding_side == "right"
    pad = tokenizer.convert_tokens_to_ids("<|pad|>")
    choose_padding(tokenizer, len(tokenizer), {end, pad})
    assert tokenizer.pad_token_id not in {end, pad, tokenizer.eos_token_id}
    everything = set(tokenizer.added_tokens_decoder)
    with pytest.raises(UserError, match="no token to pad with"):
        choose_padding(tokenizer, len(tokenizer), everything)
    with pytest.raises(UserError):
        choose_padding(tokenizer, 3, set(range(3)) | {start}), "an id that the model has no embedding for"


def test_a_reward_model_answers_nobody(tokenizer, tmp_path):
    model = model_of(tokenizer)
    save_model(model, tmp_path / "base", tokenizer)
    attach_score(model, seed=1)
    save_reward_model(model, tmp_path / "whole", tokenizer)
    adapted = load_model(tmp_path / "base")
    attach_lora(adapted, LoraSettings(r=2))
    attach_score(adapted, seed=1)
    save_adapter(adapted, tmp_path / "adapter", str(tmp_path / "base"), reward=True)
    check_answers(tmp_path / "base")
    for refuse in (
        lambda: read_config(tmp_path / "whole"),
        lambda: load_model(tmp_path / "whole"),
        lambda: load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter"),
        lambda: check_answers(tmp_path / "whole"),
        lambda: check_answers(tmp_path / "adapter"),
    ):
        with pytest.raises(UserError, match="it scores texts and cannot write any"):
            refuse()


def test_a_chat_models_adapter_is_no_reward_models(tokenizer, tmp_path):
    save_model(model_of(tokenizer), tmp_path / "base", tokenizer)
    adapted = load_model(tmp_path / "base")
    attach_lora(adapted, LoraSettings(r=2))
    save_adapter(adapted, tmp_path / "adapter", str(tmp_path / "base"))
    with pytest.raises(UserError, match=r"score\.weight is missing") as caught:
        load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter", reward=True)
    assert str(tmp_path / "adapter") in caught.value.render()


def test_the_head_of_a_reward_adapter_is_float32_whatever_the_model_computes_in(tokenizer, tmp_path):
    save_model(model_of(tokenizer), tmp_path / "base", tokenizer)
    adapted = load_model(tmp_path / "base", "bfloat16")
    attach_lora(adapted, LoraSettings(r=2))
    attach_score(adapted, seed=1)
    save_adapter(adapted, tmp_path / "adapter", str(tmp_path / "base"), reward=True)
    again = load_model(tmp_path / "base", "bfloat16")
    load_adapter(again, tmp_path / "adapter", reward=True)
    assert again.score.weight.dtype == torch.float32
    assert torch.equal(again.score.weight, adapted.score.weight)


def test_a_family_without_a_classifier_is_told_at_once(tokenizer):
    config = model_of(tokenizer).config
    check_classifier(config, "")
    other = type("Config", (), {"model_type": "mamba"})()
    with pytest.raises(UserError, match="a mamba model cannot become a reward model"):
        check_classifier(other, "stages.reward.from")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_is_off_is_the_base_to_the_bit(tokenizer, dtype):
    base, adapted = (model_of(tokenizer).to(getattr(torch, dtype)) for _ in range(2))
    base.compute_dtype = adapted.compute_dtype = getattr(torch, dtype)
    attach_lora(adapted, LoraSettings(r=2), seed=1)
    token = torch.arange(20)
    expected = base.logits(token)
    assert torch.equal(adapted.logits(token), expected), "B is zero"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.1)
    assert not torch.equal(adapted.logits(token), expected)
    with using_adapter(adapted, None):
        assert torch.equal(adapted.logits(token), expected)
    assert not torch.equal(adapted.logits(token), expected)
