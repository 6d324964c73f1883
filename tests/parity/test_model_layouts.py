"""One record, three layouts: shared prefix, packed whole chains, and one chain a forward say the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize, load_model

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
CASES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "mistral-window": {"model_type": "mistral", "sliding_window": 9},
}


def records() -> list[Record]:
    draw = np.random.default_rng(0)
    found = []
    for index, (prefix, answers) in enumerate([(20, (7, 13)), (1, (5, 1, 4)), (33, (30,)), (11, (3, 26))]):
        prompt = draw.integers(0, 97, prefix)
        chains = []
        for length in answers:
            answer = draw.integers(0, 97, length)
            scored = np.r_[np.zeros(prefix, bool), np.ones(length, bool)]
            chains.append(Chain(np.r_[prompt, answer].astype(np.int32), scored))
        found.append(Record(index, tuple(chains)))
    return found


@pytest.fixture(params=CASES)
def model(request):
    return initialize(BaseLLM(ModelConfig.from_hf(SHAPE | CASES[request.param])), seed=0)


def run(model, layout: str, row_tokens: int):
    """Mean log-probability of each sequence by record, and gradients of a weighted sum."""
    model.zero_grad()
    sums: dict[int, list[float]] = {}
    for row in pack_step(records(), row_tokens, layout):
        stats = model(row, frozenset({"logp", "lse", "entropy"}))
        weight = torch.linspace(0.5, 1.5, 97)[row.target_N]
        (weight * stats.logp_N + 0.1 * stats.entropy_N + 0.01 * stats.lse_N**2).sum().backward()
        for record, logp in zip(row.record_Q.tolist(), stats.logp_N.split(row.reads_Q.tolist()), strict=True):
            sums.setdefault(record, []).append(logp.sum().item())
    return sums, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_layouts_agree(model):
    expected, gradients = run(model, "single", 200)
    assert sum(len(found) for found in expected.values()) == 8
    for layout, row_tokens in (("shared", 400), ("shared", 70), ("packed", 400)):
        found, found_gradients = run(model, layout, row_tokens)
        for record, values in expected.items():
            assert found[record] == pytest.approx(values, abs=1e-4)
        for name, gradient in gradients.items():
            scale = gradient.abs().max()
            assert (found_gradients[name] - gradient).abs().max() <= 2e-5 * scale + 1e-6, (layout, name)


def test_plain_attention_agrees(model):
    (row,) = pack_step(records(), 400, "shared")
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(row), model.hidden(row, plain=True), atol=1e-5, rtol=1e-5)


def test_layouts_agree_with_lora(model):
    attach_lora(model, LoraSettings(r=4), seed=1)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    expected, gradients = run(model, "single", 200)
    found, found_gradients = run(model, "shared", 400)
    assert set(gradients) == {name for name, _ in model.named_parameters() if ".lora_" in name}
    for record, values in expected.items():
        assert found[record] == pytest.approx(values, abs=1e-4)
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).abs().max() <= 2e-5 * gradient.abs().max() + 1e-6, name


@pytest.mark.parametrize("case", CASES)
def test_shared_layout_equals_transformers_gradients(case, tmp_path):
    """Log-probabilities and every weight's gradient, against stock transformers on one chain at a time."""
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**(SHAPE | CASES[case])), attn_implementation="eager"
    )
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path, trainable=True)
    (row,) = pack_step(records(), 400, "shared")
    logp_N = ours(row).logp_N
    logp_N.sum().backward()
    expected = []
    for record in records():
        for chain in record.chains:
            token = torch.from_numpy(chain.token).long()
            logp = F.log_softmax(theirs(token[None]).logits[0, :-1], -1).gather(1, token[1:, None])[:, 0]
            expected.append(logp[torch.from_numpy(chain.scored[1:])])
    expected = torch.cat(expected)
    expected.sum().backward()
    torch.testing.assert_close(logp_N, expected, atol=1e-4, rtol=1e-4)
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=2e-4, rtol=1e-3, msg=name)
