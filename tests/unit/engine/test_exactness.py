"""The probe on models that share, on one that cannot, and on one that is wrong."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.engine import probe
from groundup.errors import UserError
from groundup.model import BaseLLM, ModelConfig, StockLLM, initialize

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "sliding_window": 50,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
}


def stock(kind: str, dtype: torch.dtype = torch.float32, **more) -> StockLLM:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE, **more))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return StockLLM(model.eval().requires_grad_(False), dtype)


def ours(**more) -> BaseLLM:
    raw = {"model_type": "mistral", "intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": None}
    return initialize(BaseLLM(ModelConfig.from_hf(SHAPE | raw | more)), seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_share(dtype):
    for model in (stock("gpt2", dtype), stock("gemma2", dtype, **GEMMA)):
        weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
        found = probe(model, 100)
        assert found.layout == model.layout == "shared" and found.differences["shared"] < 1e-4
        assert model.compute_dtype == dtype and model.training
        assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_a_window_is_tried_only_where_a_text_can_pass_it():
    assert "50 tokens (sliding_window)" in probe(stock("gemma2", **GEMMA), 51).reason
    assert "sliding_window" not in probe(stock("gemma2", **GEMMA), 50).reason
    assert "50 tokens (sliding_window)" in probe(ours(sliding_window=50), 51).reason


def test_a_model_that_never_calls_our_attention_falls_back():
    model = stock("falcon", num_kv_heads=2, new_decoder_architecture=True)
    found = probe(model, 100)
    assert found.layout == model.layout == "single" and "not exact" in found.reason


def test_our_own_decoder_shares():
    found = probe(ours(), 100)
    assert found.layout == "shared" and 0 < found.differences["shared"] < 1e-5


def test_a_wrong_model_is_refused():
    model = ours()
    model.model.angle.mul_(1.01)
    with pytest.raises(UserError, match="does not compute here what it computes in transformers") as caught:
        probe(model, 100)
    assert "single: log-probabilities differ" in caught.value.why


def test_weights_that_overflow_are_told_as_such():
    model = ours()
    model.model.layers[0].mlp.up_proj.weight.data.fill_(1e38)
    with pytest.raises(UserError, match="not finite"):
        probe(model, 100)


def test_a_model_that_looks_ahead_is_refused():
    torch.manual_seed(0)
    inner = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **SHAPE, intermediate_size=48, is_causal=False)
    )
    with pytest.raises(UserError, match="looks at later tokens"):
        probe(StockLLM(inner.eval()), 100)


def test_a_short_stage_has_short_texts():
    assert probe(stock("gpt2"), 4).layout == "shared"
    tiny = stock("falcon", num_kv_heads=2, new_decoder_architecture=True)
    assert probe(tiny, 4).layout == "single"
