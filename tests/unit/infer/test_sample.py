"""Sampling on distributions that are known."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import torch

from groundup.errors import UserError
from groundup.infer.sample import Sampling, kept, pick, row_random

PROBABILITY = torch.tensor([0.05, 0.5, 0.15, 0.3])


def draw_many(sampling: Sampling, count: int = 4000) -> Counter[int]:
    logits_BV = PROBABILITY.log().expand(count, -1)
    token_B, _ = pick(logits_BV, sampling, [row_random(3, row) for row in range(count)])
    return Counter(token_B.tolist())


def kept_ids(sampling: Sampling) -> set[int]:
    weight_BV = kept(PROBABILITY.log()[None], sampling)
    return set(weight_BV[0].nonzero()[:, 0].tolist())


def test_greedy_takes_the_likeliest_and_needs_no_randomness():
    token_B, logp_B = pick(PROBABILITY.log()[None], Sampling(), [])
    assert token_B.tolist() == [1]
    assert logp_B.item() == pytest.approx(torch.tensor(0.5).log().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), {0, 1, 2, 3}),
        (Sampling(1.0, top_k=2), {1, 3}),
        (Sampling(1.0, top_k=9), {0, 1, 2, 3}),
        (Sampling(1.0, top_p=0.5), {1}),
        (Sampling(1.0, top_p=0.51), {1, 3}),
        (Sampling(1.0, top_p=0.9), {1, 2, 3}),
        (Sampling(1.0, top_p=1e-6), {1}),
        # of the two likeliest, 0.5 and 0.3, the first holds 0.625
        (Sampling(1.0, top_k=2, top_p=0.6), {1}),
        # temperature comes first: at 0.5 the likeliest holds 0.25 / 0.365 = 0.68
        (Sampling(0.5, top_p=0.6), {1}),
        # at least 0.5 times 0.5, then 0.25 of the tempered 0.25
        (Sampling(1.0, min_p=0.5), {1, 3}),
        (Sampling(0.5, min_p=0.5), {1}),
        (Sampling(1.0, top_k=3, top_p=0.8, min_p=0.1), {1, 3}),
    ],
)
def test_which_tokens_may_be_drawn(sampling: Sampling, expected: set[int]):
    assert kept_ids(sampling) == expected


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), PROBABILITY),
        (Sampling(0.5), PROBABILITY.square() / PROBABILITY.square().sum()),
        (Sampling(1.0, top_k=2), torch.tensor([0.0, 0.625, 0.0, 0.375])),
        (Sampling(1.0, top_p=0.9), torch.tensor([0.0, 0.5, 0.15, 0.3]) / 0.95),
    ],
)
def test_draws_follow_the_distribution(sampling: Sampling, expected: torch.Tensor):
    counts = draw_many(sampling)
    seen = torch.tensor([counts[token] / 4000 for token in range(4)])
    assert torch.allclose(seen, expected, atol=0.03)
    assert all(counts[token] == 0 for token in range(4) if expected[token] == 0)


def test_log_probability_is_the_models_own_whatever_was_used_to_draw():
    logits_BV = PROBABILITY.log().expand(50, -1) + 7.0
    token_B, logp_B = pick(
        logits_BV, Sampling(0.3, top_k=3, top_p=0.95), [row_random(0, i) for i in range(50)]
    )
    assert logp_B.dtype == torch.float32
    assert torch.allclose(logp_B, PROBABILITY.log()[token_B], atol=1e-5)


def test_a_tiny_temperature_is_greedy_and_bfloat16_logits_are_taken():
    logits_BV = torch.tensor([[0.0, 30.0, 29.0]], dtype=torch.bfloat16)
    assert pick(logits_BV, Sampling(1e-6), [row_random(0, 0)])[0].tolist() == [1]


def test_a_row_draws_the_same_alone_and_in_a_batch():
    logits_BV = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    together, _ = pick(logits_BV, Sampling(1.0, top_p=0.8), [row_random(1, row) for row in range(5)])
    for row in range(5):
        alone, _ = pick(logits_BV[row : row + 1], Sampling(1.0, top_p=0.8), [row_random(1, row)])
        assert alone.item() == together[row].item()


def test_rows_and_seeds_differ():
    draws = {row_random(seed, row).random() for seed in range(10) for row in range(10)}
    assert len(draws) == 100


def test_impossible_tokens_are_never_drawn():
    logits_BV = torch.full((200, 6), float("-inf"))
    logits_BV[:, 2] = 0.0
    token_B, _ = pick(logits_BV, Sampling(1.0, top_p=0.9), [row_random(0, row) for row in range(200)])
    assert set(token_B.tolist()) == {2}


def test_logits_that_are_not_numbers_are_named():
    with pytest.raises(UserError, match="not finite"):
        pick(torch.tensor([[0.0, float("nan")]]), Sampling(), [])


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 1.0}]
)
def test_impossible_settings_are_refused(bad: dict[str, float]):
    with pytest.raises(UserError, match=next(iter(bad))):
        Sampling(**bad)  # type: ignore[arg-type]


def test_rows_have_settings_of_their_own():
    """Each row as if it were alone: greedy ones beside drawn ones."""
    draw = torch.Generator().manual_seed(4)
    logits_BV = torch.randn(6, 900, generator=draw) * 3
    settings = [
        Sampling(),
        Sampling(1.0),
        Sampling(0.7, top_k=5),
        Sampling(1.3, top_p=0.4),
        Sampling(1.0, top_k=50, top_p=0.9, min_p=0.05),
        Sampling(2.0, min_p=0.2),
    ]
    together, _ = pick(logits_BV, settings, [row_random(2, row) for row in range(6)])
    for row, sampling in enumerate(settings):
        alone, _ = pick(logits_BV[row : row + 1], sampling, [row_random(2, row)])
        assert alone.item() == together[row].item()


def test_a_nucleus_larger_than_what_is_looked_at_first():
    logits_BV = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 0.1  # almost flat
    for top_p in (0.01, 0.5, 0.999):
        weight_BV = kept(logits_BV, Sampling(1.0, top_p=top_p))
        share = logits_BV.double().softmax(-1)
        for row in range(2):
            ordered = share[row].sort(descending=True).values
            count = int((ordered.cumsum(0) - ordered < top_p).sum())
            assert int((weight_BV[row] > 0).sum()) == count
            assert float(share[row][weight_BV[row] > 0].min()) == float(ordered[count - 1])


class Drawn(Random):
    """Draws what it was told to."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("vocabulary", [5, 128, 129, 1000])
def test_a_draw_is_the_token_at_which_the_cumulative_weight_passes_it(vocabulary: int):
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(vocabulary, generator=draw) * 3
    logits[torch.rand(vocabulary, generator=draw) < 0.3] = -torch.inf
    logits[0] = logits[-1] = -torch.inf
    edges = logits.double().softmax(-1).cumsum(-1)
    middles = torch.rand(2000, generator=draw, dtype=torch.float64)
    clear = middles[(middles[:, None] - edges).abs().amin(-1) > 1e-6]
    assert len(clear) > 1900
    shares = [0.0, 1.0 - 2.0**-53, *clear.tolist()]
    token_B, _ = pick(logits.expand(len(shares), -1), Sampling(1.0), [Drawn(share) for share in shares])
    assert torch.equal(token_B[2:], torch.searchsorted(edges, clear, right=True))
    possible = logits.isfinite().nonzero()[:, 0]
    assert token_B[:2].tolist() == [possible[0], possible[-1]]
