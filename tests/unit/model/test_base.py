"""Decoding in batches, dtypes of parameters, and what a forward gives."""

import numpy as np
import pytest
import torch

from groundup.batch import Batch, Chain, Record, build_row
from groundup.errors import UserError
from groundup.model import BaseLLM, ModelConfig, initialize

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


@pytest.mark.parametrize("window", [None, 3])
def test_prompts_of_different_lengths_decode_as_alone(window):
    model = tiny(model_type="mistral", sliding_window=window)
    texts = [torch.arange(start, start + length) % 31 for start, length in ((1, 9), (5, 4), (11, 6))]
    prompts = [4, 2, 5]
    token_BS = torch.stack([torch.nn.functional.pad(text[:p], (0, 5 - p)) for text, p in zip(texts, prompts)])
    position_BS = torch.arange(5).expand(3, 5)
    cache = model.new_cache(capacity_tokens=5)
    found = model.decode(token_BS, position_BS, cache, torch.tensor(prompts))
    for row, (text, count) in enumerate(zip(texts, prompts)):
        torch.testing.assert_close(found[row], model.logits(text[:count])[-1])
    kept, at = [2, 0], [5, 4]  # row 1 is finished; the others change places and outgrow the cache
    cache.select(torch.tensor(kept))
    for _ in range(2):
        token_B1 = torch.tensor([[texts[row][place]] for row, place in zip(kept, at)]) % 31
        found = model.decode(token_B1, torch.tensor(at)[:, None], cache, torch.ones(2, dtype=torch.int64))
        for index, row in enumerate(kept):
            place = at[index]
            text = torch.cat((texts[row][:place], token_B1[index]))
            torch.testing.assert_close(found[index], model.logits(text)[-1])
        if texts[2].shape[0] == at[0] + 1:
            break
        at = [place + 1 for place in at]


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
