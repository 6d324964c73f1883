"""Decoding in batches, dtypes of parameters, and what a forward gives."""

import numpy as np
import pytest
import torch

from groundup.batch import Batch, Chain, Record, build_row, text_row
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import (
    BaseLLM,
    ModelConfig,
    attach_lora,
    copy_adapter,
    few_rows,
    initialize,
    using_adapter,
)

TINY = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def tiny(dtype=torch.float32, **options) -> BaseLLM:
    return initialize(BaseLLM(ModelConfig.from_hf(TINY | {"model_type": "llama"} | options), dtype), seed=0)


def one_text(count: int) -> Batch:
    token = np.arange(count, dtype=np.int32) % 31
    record = Record(0, (Chain(token, np.arange(count) > 0),))
    return build_row([record], "single", token_weight=1.0, group_weight=1.0)


def test_forward_gives_log_probabilities_of_targets():
    model, batch = tiny(), one_text(12)
    stats = model(batch, frozenset({"logp", "lse"}))
    logits_TV = model.logits(batch.token_T)
    expected = logits_TV.log_softmax(-1).gather(1, batch.target_N[:, None])[:, 0]
    torch.testing.assert_close(stats.logp_N, expected)
    torch.testing.assert_close(stats.lse_N, logits_TV.logsumexp(-1))
    assert stats.entropy_N is None and stats.value_N is None


@pytest.mark.parametrize("window", [None, 3, 40])
@pytest.mark.parametrize(
    ("samples", "kept_at"),
    [
        ([1, 1, 1], {4: [2, 0], 6: [0]}),
        ([3, 1, 2], {3: [0, 2, 3, 4, 5], 5: [4, 0, 2], 9: [0, 1]}),
        (
            [3, 3],
            {2: [0, 1, 3, 4, 5], 4: [4, 3, 1, 0], 66: [2]},
        ),  # holes at first, and a cache that is outgrown
    ],
)
def test_samples_of_prompts_decode_as_each_text_alone(window, samples, kept_at):
    model = tiny(model_type="mistral", sliding_window=window)
    prompts = [[1, 2, 3, 4], [5, 6], list(range(7, 12))][: len(samples)]
    texts = [list(prompt) for prompt, count in zip(prompts, samples) for _ in range(count)]
    decoding = model.decoding(prompts, samples)
    draw = torch.Generator().manual_seed(0)
    for number in range(70 if 66 in kept_at else 12):
        for row, text in enumerate(texts):
            torch.testing.assert_close(decoding.logits_BV[row], model.logits(torch.tensor(text))[-1])
        if number in kept_at:
            texts = [texts[row] for row in kept_at[number]]
            decoding.keep(kept_at[number])
        token_B = torch.randint(0, 31, (len(texts),), generator=draw)
        texts = [[*text, token] for text, token in zip(texts, token_B.tolist())]
        decoding.step(token_B)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("copied_bytes", [0, 10**9])
def test_a_prepared_step_equals_the_layers_own_forward(family, lora, copied_bytes, monkeypatch):
    """Joined projections or not, folded adapters, biases, and norms on queries and keys."""
    monkeypatch.setattr(few_rows, "COPIED_BYTES", copied_bytes)
    model = tiny(model_type=family)
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.randn(parameter.shape, generator=draw) * 0.3
    if lora:
        attach_lora(model, LoraSettings(r=3))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=draw) * 0.3
    row = text_row([[3, 1, 4], [1, 5, 9, 2, 6]])
    decoding = model.decoding([[3, 1], [1, 5, 9, 2]], [1, 1])
    decoding.step(torch.tensor([4, 6]))
    torch.testing.assert_close(decoding.logits_BV, model.head.logits(model.read(row)))


def test_steps_compute_in_the_compute_dtype_with_trained_weights_in_float32():
    model = tiny(torch.bfloat16)
    decoding = model.decoding([[3, 1]], [2])
    decoding.step(torch.tensor([4, 6]))
    expected = model.head.logits(model.read(text_row([[3, 1, 4], [3, 1, 6]])))
    torch.testing.assert_close(decoding.logits_BV, expected, atol=0.1, rtol=0.1)
    assert decoding.logits_BV.dtype == torch.float32


def test_trained_parameters_are_float32_and_computation_is_not():
    model, batch = tiny(torch.bfloat16), one_text(12)
    assert model.hidden(batch).dtype == torch.bfloat16
    stats = model(batch)
    assert stats.logp_N.dtype == torch.float32
    stats.logp_N.sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_dynamic_scaling_refuses_positions_where_texts_would_change_each_other():
    model = tiny(
        max_position_embeddings=8,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )
    model(one_text(9))  # predicts from positions 0 to 7
    with pytest.raises(UserError, match="longer than 8 tokens"):
        model(one_text(10))


def test_tied_weights_are_one_parameter():
    assert tiny(tie_word_embeddings=True).tied
    assert not tiny().tied
    assert len(list(tiny(tie_word_embeddings=True).parameters())) == len(list(tiny().parameters())) - 1


def test_a_step_takes_the_adapter_that_is_active():
    model = tiny()
    attach_lora(model, LoraSettings(r=3))
    copy_adapter(model, "other", trainable=False)
    for place, (name, parameter) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            parameter.data.fill_(0.1 * (1 + place % 3))
    row, found = text_row([[3, 1, 4]]), []
    for adapter in ("own", "other", None):
        with using_adapter(model, adapter):
            decoding = model.decoding([[3, 1]], [1])
            decoding.step(torch.tensor([4]))
            found.append(decoding.logits_BV)
            torch.testing.assert_close(found[-1], model.head.logits(model.read(row)))
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])
