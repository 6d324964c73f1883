"""Any forest says the same in every layout and cut into any rows: log-probabilities, losses and all gradients.

`single` is the plain meaning: one whole chain after another, nothing shared. tests/parity compares that with
transformers.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.batch import Chain, Record, pack_step, segment_tokens
from groundup.config.schema import LoraSettings
from groundup.engine.loop import backward
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize, lora_state, tiles
from groundup.objective import Dpo, LanguageModeling, means, sequence_logp

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
}
FAMILIES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
}
MOST_CHAINS = 24
LOGP_TOLERANCE = 1e-5
"""Nats, float32."""
GRADIENT_TOLERANCE = 2e-5
"""Of a parameter's largest gradient before chosen and rejected, which may be twins, cancel."""
REAL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def records(draw, children=None):
    """Up to six records of up to sixteen chains, with what makes layouts go wrong."""
    counts = [children] * draw(st.integers(1, 6)) if children else draw(few_children())
    made = []
    for index, count in enumerate(counts):
        tokens = np.random.default_rng(draw(st.integers(0, 2**32)))
        prompt = tokens.integers(0, VOCABULARY, draw(st.integers(1, 60)))
        answers = [
            tokens.integers(0, VOCABULARY, draw(st.integers(1, 50) | st.just(1))) for _ in range(count)
        ]
        kind = draw(st.sampled_from(["plain", "same start", "twins", "other prompts"]))
        if kind == "same start":
            for answer in answers:
                answer[0] = 5
        if kind == "twins":
            answers[-1] = answers[0]
        prompts = [prompt] * count
        if kind == "other prompts":
            at = draw(st.integers(0, len(prompt) - 1))
            prompts = [
                np.r_[prompt[:at], (prompt[at] + i) % VOCABULARY, prompt[at + 1 :]] for i in range(count)
            ]
        holes = draw(st.sampled_from([0.0, 0.5]))
        chains = tuple(
            scored_chain(p, answer, tokens.random(len(answer)) >= holes)
            for p, answer in zip(prompts, answers)
        )
        # Near the model's own, so that DPO's sigmoid is not flat.
        reference = tuple(tokens.normal(-4.2 * chain.scored.sum(), 3.0) for chain in chains)
        made.append(Record(index, chains, {"ref_logp": reference}))
    return made


def few_children():
    counts = st.lists(st.integers(1, 16), min_size=1, max_size=6)
    return counts.filter(lambda each: sum(each) <= MOST_CHAINS)


def scored_chain(prompt, answer, scored):
    """At least one token of the answer is scored."""
    if not scored.any():
        scored[-1] = True
    return Chain(np.r_[prompt, answer].astype(np.int32), np.r_[np.zeros(len(prompt), bool), scored])


def made(family, lora=False):
    model = initialize(BaseLLM(ModelConfig.from_hf(SHAPE | FAMILIES[family])), seed=0)
    if lora:
        attach_lora(model, LoraSettings(r=4), seed=1)
        for name, tensor in lora_state(model).items():
            if ".lora_B" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    return model


def step(model, objective, recs, layout, row_tokens):
    """(log-probabilities by record and chain, loss, metrics, gradients) of a step laid out like this."""
    model.zero_grad()
    logps, losses, metrics = {}, [], []
    for row in pack_step(recs, row_tokens, layout):
        metrics.append(backward(model, objective, row))
        with torch.no_grad():
            stats = model(row, objective.needs)
            losses.append(objective.loss(stats, row)[0].item())
        for record, logp_n in zip(row.record_Q.tolist(), stats.logp_N.split(row.reads_Q.tolist())):
            logps.setdefault(record, []).append(logp_n)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logps, sum(losses), means(metrics), gradients


class BothSides(Dpo):
    """The size of DPO's gradients, all of one sign."""

    def loss(self, stats, batch):
        weight_Q = batch.weight_G.repeat_interleave(2)
        return 0.5 * self.beta * (sequence_logp(stats, batch) * weight_Q).sum(), {}


def check_layouts(family, objective, recs, share, how):
    """`single` and whole tiles against the others as `how` says: a model with or without LoRA and recomputation."""
    model = made(family, how["lora"])
    whole = row_lengths(recs, "single", 1.0)
    expected = step(model, objective, recs, "single", whole)
    assert len(expected[0]) == len(recs)
    sizes = expected[3]
    if isinstance(objective, Dpo):
        sizes = step(model, BothSides(objective.beta), recs, "single", whole)[3]
    model.recompute = how["recompute"]
    for layout in ("packed", "shared"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles, "TILE_QUERIES", how["tile_queries"])
            patch.setattr(tiles, "ALONE", how["alone"])
            found = step(model, objective, recs, layout, row_lengths(recs, layout, share))
        assert_same_step(found, expected, sizes)


def assert_same_step(found, expected, sizes):
    for record, chains in expected[0].items():
        for ours, plain in zip(found[0][record], chains, strict=True):
            assert (ours - plain).abs().max() <= LOGP_TOLERANCE
    assert found[1] == pytest.approx(expected[1], rel=2e-6, abs=2e-6)
    # Sums over up to 50 tokens; rewards and margins are differences of them.
    assert found[2] == pytest.approx(expected[2], rel=1e-5, abs=5e-5)
    assert found[3].keys() == expected[3].keys()
    for name, gradient in expected[3].items():
        size = sizes[name].abs().max()
        assert (found[3][name] - gradient).abs().max() <= GRADIENT_TOLERANCE * size, name


def row_lengths(recs, layout, share):
    """A length of rows between the longest record and all of them in one."""
    sizes = [segment_tokens(record, layout) for record in recs]
    return max(sizes) + round(share * (sum(sizes) - max(sizes)))


HOW = st.fixed_dictionaries(
    {
        "lora": st.booleans(),
        "recompute": st.booleans(),
        "tile_queries": st.sampled_from([5, 128]),
        "alone": st.sampled_from([0, 128 * 128]),
    }
)
SHARE = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@pytest.mark.parametrize("family", FAMILIES)
@given(recs=records(), share=SHARE, how=HOW)
@settings(REAL, max_examples=12)
def test_language_modeling(family, recs, share, how):
    check_layouts(family, LanguageModeling(), recs, share, how)


@pytest.mark.parametrize("family", FAMILIES)
@given(recs=records(children=2), share=SHARE, how=HOW)
@settings(REAL, max_examples=12)
def test_dpo(family, recs, share, how):
    check_layouts(family, Dpo(0.1), recs, share, how)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(recs=records() | records(children=2), share=st.floats(0, 1), how=HOW)
@settings(REAL, max_examples=120)
def test_many_more_forests(family, recs, share, how):
    pairs = all(len(record.chains) == 2 for record in recs)
    check_layouts(family, Dpo(0.1) if pairs else LanguageModeling(), recs, share, how)


def test_a_record_counts_the_same_whoever_stands_beside_it():
    """Its neighbours in a row change no bit of its log-probabilities that rounding would not."""
    draw = np.random.default_rng(3)
    recs = [
        Record(i, (scored_chain(draw.integers(0, 61, 9), draw.integers(0, 61, 20), np.ones(20, bool)),))
        for i in range(5)
    ]
    model = made("mistral")
    alone = [step(model, LanguageModeling(), [replace(r, index=0)], "shared", 99)[0][0][0] for r in recs]
    together = step(model, LanguageModeling(), recs, "shared", 999)[0]
    for record, logp_n in enumerate(alone):
        assert (together[record][0] - logp_n).abs().max() <= LOGP_TOLERANCE
