"""transformers' own layers with our batch, attention, head and LoRA, against transformers alone, one chain at a time.

Log-probabilities, losses and gradients of random forests in every layout; folders and adapters both ways; generation.
"""

import json

import numpy as np
import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.engine import probe
from groundup.infer import generate
from groundup.model import (
    StockLLM,
    attach_lora,
    load_adapter,
    load_model,
    merge_lora,
    save_adapter,
    save_model,
)

pytestmark = pytest.mark.parity

VOCAB = 97
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CASES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 9},
    "gemma2": {
        **SLIDING,
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {**SLIDING, "head_dim": 16, "query_pre_attn_scalar": 24},
    "phi3": {"sliding_window": 9},
    "gpt2": {"intermediate_size": None, "scale_attn_by_inverse_layer_idx": True},
    "gpt_oss": {**SLIDING, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**MOE, "head_dim": 8},
    "mixtral": {"num_local_experts": 4},
    "olmo2": {},
    "phi": {},
    "granite": {
        "attention_multiplier": 0.3,
        "logits_scaling": 3.0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
    },
    "cohere": {"logit_scale": 0.5},
}
LAYOUTS = ("shared", "packed", "single")


def stock(kind: str, **more) -> torch.nn.Module:
    """transformers' random model; norms, biases and sinks are moved off the values that would hide a missing one."""
    shape = {
        key: value for key, value in {**SHAPE, **CASES.get(kind, {}), **more}.items() if value is not None
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def twins(kind: str) -> tuple[torch.nn.Module, StockLLM]:
    """transformers' model by itself, and ours around a second copy."""
    theirs, inner = stock(kind), stock(kind)
    inner.load_state_dict(theirs.state_dict())
    return theirs, StockLLM(inner)


def record(index: int, draw: np.random.Generator, prompt: int, answers: list[int]) -> Record:
    first = draw.integers(3, VOCAB, prompt)
    chains = []
    for count in answers:
        token = np.r_[first, draw.integers(3, VOCAB, count)].astype(np.int32)
        chains.append(Chain(token, np.arange(len(token)) >= prompt))
    return Record(index, tuple(chains))


def forest(shape: list[tuple[int, list[int]]], seed: int = 0) -> list[Record]:
    draw = np.random.default_rng(seed)
    return [record(index, draw, prompt, answers) for index, (prompt, answers) in enumerate(shape)]


FOREST = [(20, [7, 13]), (1, [5, 1, 4]), (33, [30]), (11, [3, 26])]


def weight(target_N: torch.Tensor) -> torch.Tensor:
    return torch.linspace(0.5, 1.5, VOCAB)[target_N]


def theirs_says(model, records) -> tuple[dict, float]:
    """Log-probabilities by (record, chain); the loss's gradients are left on the parameters."""
    found, total = {}, 0.0
    for one in records:
        for number, chain in enumerate(one.chains):
            token = torch.from_numpy(chain.token).long()
            logp_TV = F.log_softmax(model(token[None], use_cache=False).logits[0, :-1], -1)
            scored = torch.from_numpy(chain.scored[1:])
            logp = logp_TV.gather(1, token[1:, None])[scored, 0]
            loss = (weight(token[1:][scored]) * logp).sum()
            loss.backward()
            found[one.index, number] = logp.detach()
            total += float(loss)
    return found, total


def ours_says(model, records, layout) -> tuple[dict, float]:
    model.layout = layout
    found, total = {}, 0.0
    for row in pack_step(records, 400, layout):
        logp_N = model(row).logp_N
        loss = (weight(row.target_N) * logp_N).sum()
        loss.backward()
        total += float(loss)
        for index, logp in zip(
            row.record_Q.tolist(), logp_N.detach().split(row.reads_Q.tolist()), strict=True
        ):
            number = sum(1 for record, _ in found if record == index)
            found[index, number] = logp
    return found, total


def gradients(model) -> dict[str, torch.Tensor]:
    """By transformers' names and in its shapes."""
    turned = getattr(model, "transposed", ())
    return {
        name: p.grad.T if name in turned else p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def check_equal(theirs, ours, records, layout) -> None:
    theirs.zero_grad()
    ours.zero_grad()
    wanted, wanted_loss = theirs_says(theirs, records)
    found, loss = ours_says(ours, records, layout)
    assert found.keys() == wanted.keys()
    for key, logp in wanted.items():
        torch.testing.assert_close(found[key], logp, atol=1e-5, rtol=1e-6)
    assert loss == pytest.approx(wanted_loss, rel=1e-5, abs=1e-4)
    mine, expected = gradients(ours), gradients(theirs)
    assert mine.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (mine[name] - gradient).abs().max() <= 2e-5 * gradient.abs().max() + 1e-6, name


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CASES)
def test_every_layout_equals_the_stock_model(kind, layout, recompute):
    theirs, ours = twins(kind)
    ours.recompute = recompute
    ours.train()
    check_equal(theirs, ours, forest(FOREST), layout)


ANSWERS = st.lists(st.integers(1, 14), min_size=1, max_size=3)


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "gpt_oss"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.lists(st.tuples(st.integers(1, 24), ANSWERS), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_any_forest_equals_the_stock_model(kind, shape, seed):
    theirs, ours = twins(kind)
    for layout in LAYOUTS:
        check_equal(theirs, ours, forest(shape, seed), layout)


@pytest.mark.parametrize("kind", CASES)
def test_the_probe_keeps_shared_where_it_is_exact(kind):
    ours = twins(kind)[1]
    found = probe(ours, 64)
    assert found.layout == ours.layout == "shared"
    assert found.differences["shared"] < 1e-5
    if "sliding_window" in CASES[kind]:  # shorter than what the probe would make it
        assert "tried too" not in found.reason
    assert found.seconds < 10


def test_the_probe_passes_a_window_that_a_stage_can_reach():
    found = probe(StockLLM(stock("mistral", sliding_window=100)), 128)
    assert found.layout == "shared" and "100 tokens (sliding_window)" in found.reason
    found = probe(StockLLM(stock("mistral", sliding_window=100)), 64)
    assert found.layout == "shared" and "tried too" not in found.reason


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
MAMBA = {"mamba_d_head": 8, "mamba_d_state": 16}
FALLBACKS = {
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "bloom": {},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "intermediate_size": None},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "window_size": 9,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": None,
    },
    "stablelm": {},
    "phimoe": {"sliding_window": 9, "num_local_experts": 4},
    "llama4_text": {
        "attention_chunk_size": 40,
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
        "head_dim": 8,
        "no_rope_layers": [1, 1],
        "layer_types": ["chunked_attention"] * 2,
    },
    "qwen3_next": {
        **MOE,
        "head_dim": 8,
        "shared_expert_intermediate_size": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    "bamba": {**MAMBA, "mamba_n_heads": 8, "attn_layer_indices": [1]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
        "mamba_dt_rank": 4,
    },
    "llama": {"rope_parameters": DYNAMIC, "max_position_embeddings": 60},
    "phi3": {"rope_parameters": LONG, "original_max_position_embeddings": 60},
}


@pytest.mark.parametrize("kind", FALLBACKS)
def test_the_probe_catches_what_cannot_share_or_pack(kind):
    """And in the layout that it falls back to, losses and gradients are the stock model's."""
    theirs, inner = (stock(kind, **FALLBACKS[kind]) for _ in range(2))
    ours = StockLLM(inner)
    found = probe(ours, 100)
    assert found.layout == ours.layout == "single" and "not exact" in found.reason
    check_equal(theirs, ours, forest([(12, [4, 9]), (3, [20])]), "single")


def test_a_limit_beyond_the_stage_costs_nothing():
    ours = StockLLM(stock("phi3", **FALLBACKS["phi3"]))
    assert probe(ours, 50).layout == "shared"


class NoTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def save_pretrained(self, folder):
        pass


@pytest.mark.parametrize(
    "kind", [*(kind for kind in CASES if kind not in ("llama", "qwen2")), "falcon", "lfm2"]
)
def test_folders_open_in_plain_transformers_with_equal_logits(kind, tmp_path):
    token = torch.arange(3, 60)
    theirs = stock(kind, **FALLBACKS.get(kind, {}))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs", trainable=True)
    with torch.no_grad():
        expected = theirs(token[None], use_cache=False).logits[0]
    torch.testing.assert_close(ours.logits(token), expected, atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.01)
    changed = ours.logits(token)
    save_model(ours, tmp_path / "ours", NoTokenizer())
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and type(again) is type(theirs)
    with torch.no_grad():
        torch.testing.assert_close(
            again(token[None], use_cache=False).logits[0], changed, atol=2e-5, rtol=1e-5
        )
    raw = json.loads((tmp_path / "ours/config.json").read_text())
    assert (raw["eos_token_id"], raw["dtype"]) == (2, "float32")


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "phi", "qwen3_moe", "falcon"])
def test_adapters_both_ways(kind, tmp_path):
    token = torch.arange(3, 60)
    stock(kind, **FALLBACKS.get(kind, {})).save_pretrained(tmp_path / "base")
    ours = load_model(tmp_path / "base")
    names = attach_lora(ours, LoraSettings(r=4), seed=1)
    for name, parameter in ours.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    expected = ours.logits(token)
    save_adapter(ours, tmp_path / "adapter", str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        plain = base(token[None], use_cache=False).logits[0]
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        found = theirs(input_ids=token[None], use_cache=False).logits[0]
    assert (found - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    theirs.save_pretrained(tmp_path / "peft")
    again = load_model(tmp_path / "base")
    assert sorted(load_adapter(again, tmp_path / "peft")) == sorted(names)
    torch.testing.assert_close(again.logits(token), expected, atol=2e-5, rtol=1e-5)
    merge_lora(again)
    torch.testing.assert_close(again.logits(token), expected, atol=5e-5, rtol=1e-5)
    save_model(again, tmp_path / "merged", NoTokenizer())
    torch.testing.assert_close(load_model(tmp_path / "merged").logits(token), expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "phi", "mpt"])
def test_all_linear_means_what_peft_means(kind):
    theirs = stock(kind, **FALLBACKS.get(kind, {}))
    names = attach_lora(StockLLM(stock(kind, **FALLBACKS.get(kind, {}))), LoraSettings(r=2))
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    layers = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in wrapped.named_modules()
        if name.endswith(".lora_A.default")
    }
    assert set(names) == layers


@pytest.mark.parametrize("kind", [*CASES, "falcon", "lfm2"])
def test_greedy_generation_equals_transformers(kind):
    theirs, inner = (stock(kind, **FALLBACKS.get(kind, {})) for _ in range(2))
    ours = StockLLM(inner)
    probe(ours, 64)
    prompts = [list(range(5, 5 + count)) for count in (14, 3, 8)]
    found = generate(ours, prompts, max_new_tokens=12, stop_tokens=())
    for prompt, one in zip(prompts, found, strict=True):
        wanted = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None
        )
        assert one.token == wanted[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "granite"])
def test_bfloat16_computes_with_float32_weights(kind):
    """Trained weights stay float32 and get float32 gradients, near those of float32 computation."""
    exact, rounded = StockLLM(stock(kind)), StockLLM(stock(kind), torch.bfloat16)
    records = forest(FOREST)
    losses = [ours_says(model, records, "shared")[1] for model in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    for name, gradient in gradients(exact).items():
        mine = gradients(rounded)[name]
        assert mine.dtype == torch.float32
        assert F.cosine_similarity(mine.flatten(), gradient.flatten(), 0) > 0.95, name
