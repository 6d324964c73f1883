"""The generator beside the trainer's own numbers, and its draws beside transformers' processors."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.engine import probe
from groundup.infer import Sampling, generate
from groundup.infer.sample import kept, pick, row_random
from groundup.model import BaseLLM, LanguageModel, ModelConfig, StockLLM, attach_lora, initialize

pytestmark = pytest.mark.parity

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OURS = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    "mistral": {"num_key_value_heads": 4, "sliding_window": 9},
}
STOCK = {
    "gpt2": {},
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 9,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 9},
    "granite": {"num_key_value_heads": 2, "attention_multiplier": 0.3},
    "gpt_oss": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 9,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},  # runs as transformers runs it
}


def ours(kind: str) -> BaseLLM:
    model = initialize(BaseLLM(ModelConfig.from_hf(SHAPE | {"model_type": kind} | OURS[kind])), seed=1)
    return _stirred(model)


def stock(kind: str) -> StockLLM:
    torch.manual_seed(1)
    options = {name: value for name, value in SHAPE.items() if (kind, name) != ("gpt2", "intermediate_size")}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options, **STOCK[kind]))
    model = _stirred(StockLLM(theirs.eval()))
    probe(model, 64)
    return model


def _stirred(model: LanguageModel) -> LanguageModel:
    """Norms and biases that are no ones and zeros, which would hide a missing one."""
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.randn(parameter.shape, generator=draw) * 0.2
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize(
    "make", [*((ours, kind) for kind in OURS), *((stock, kind) for kind in STOCK)], ids=str
)
def test_log_probabilities_are_the_trainers(make, lora):
    """What a policy-gradient step computes again, from rows with shared prompts, is what was noted at sampling."""
    build, kind = make
    model = build(kind)
    if lora:
        attach_lora(model, LoraSettings(r=4))
        draw = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    prompts = [list(range(5, 5 + count)) for count in (14, 3, 30)]
    found = generate(
        model,
        prompts,
        samples=4,
        max_new_tokens=24,
        stop_tokens=(7, 11, 13),
        temperature=1.0,
        top_p=0.95,
        seed=8,
    )
    assert len({len(one.token) for one in found}) > 1, "some rows should end early"
    records = []
    for index, prompt in enumerate(prompts):
        chains = []
        for one in found[4 * index : 4 * index + 4]:
            token = np.array([*prompt, *one.token], dtype=np.int32)
            chains.append(Chain(token, np.arange(len(token)) >= len(prompt)))
        records.append(Record(index, tuple(chains)))
    layout = getattr(model, "layout", "shared")
    again: dict[int, list[torch.Tensor]] = {}
    with torch.no_grad():
        for row in pack_step(records, 400, layout):
            logps = model(row).logp_N.split(row.reads_Q.tolist())
            for record, logp in zip(row.record_Q.tolist(), logps, strict=True):
                again.setdefault(record, []).append(logp)
    recomputed = [logp for index in range(len(prompts)) for logp in again[index]]
    for one, logp in zip(found, recomputed, strict=True):
        torch.testing.assert_close(torch.tensor(one.logp), logp, atol=1e-4, rtol=0)


SETTINGS = [
    Sampling(1.0),
    Sampling(0.7),
    Sampling(1.0, top_k=13),
    Sampling(1.5, top_p=0.8),
    Sampling(1.0, min_p=0.1),
    Sampling(0.8, top_k=200, top_p=0.95),
    Sampling(1.2, top_k=40, top_p=0.9, min_p=0.05),
    Sampling(1.0, top_p=0.3, min_p=0.3),
]


def theirs(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities after transformers' own warpers, in its order."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers(None, logits_BV.clone()).softmax(-1)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_weights_are_transformers(sampling, spread):
    logits_BV = torch.randn(8, 1000, generator=torch.Generator().manual_seed(5)) * spread
    weight_BV = kept(logits_BV, sampling)
    probability_BV = theirs(logits_BV, sampling)
    assert torch.equal(weight_BV > 0, probability_BV > 0)
    torch.testing.assert_close(
        weight_BV / weight_BV.sum(-1, keepdim=True), probability_BV, atol=1e-6, rtol=1e-4
    )


def test_draws_follow_transformers_probabilities():
    """Chi-square of 20,000 draws a setting; with 8 settings a bound of p = 1e-5 fails once in 12,000 runs of seeds."""
    logits = torch.randn(12, generator=torch.Generator().manual_seed(6)) * 1.5
    count = 20_000
    for number, sampling in enumerate(SETTINGS):
        expected = theirs(logits[None], sampling)[0]
        token_B, _ = pick(
            logits.expand(count, -1), sampling, [row_random(number, row) for row in range(count)]
        )
        seen = torch.bincount(token_B, minlength=12)
        possible = expected > 0
        assert int(seen[~possible].sum()) == 0
        statistic = float(((seen - count * expected) ** 2 / (count * expected))[possible].sum())
        assert statistic < 45, f"{sampling}: {statistic:.1f}"  # 11 degrees of freedom
