"""Losses on numbers that can be worked out by hand, and their metrics."""

import math

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.objective import Dpo, LanguageModeling, means, sequence_logp


def chain(tokens, prompt):
    token = np.array(tokens, dtype=np.int32)
    return Chain(token, np.arange(len(token)) >= prompt)


def pairs(count, ref):
    return [
        Record(i, (chain([1, 2, 3, 4], 2), chain([1, 2, 5], 2)), sequence={"ref_logp": ref})
        for i in range(count)
    ]


def test_language_modeling_is_the_mean_over_the_steps_tokens_however_it_is_packed():
    records = [Record(0, (chain([1, 2, 3], 1),)), Record(1, (chain([1, 2, 3, 4, 5], 1),))]
    logp = {0: -1.0, 1: -4.0}
    for row_tokens in (4, 100):
        rows = pack_step(records, row_tokens)
        losses, metrics = [], []
        for row in rows:
            each = torch.tensor([logp[int(r)] for r in row.record_Q.repeat_interleave(row.reads_Q)])
            loss, found = LanguageModeling().loss(Stats(logp_N=each), row)
            losses.append(loss)
            metrics.append(found)
        assert float(sum(losses)) == pytest.approx((2 * 1.0 + 4 * 4.0) / 6)
        assert means(metrics)["loss"] == pytest.approx(3.0)


def test_the_gradient_told_beforehand_is_the_one_that_comes_bit_by_bit():
    records = [Record(i, (chain(range(1, 4 + i), 1),)) for i in range(5)]
    for row in pack_step(records, 8):
        logp_N = torch.full_like(row.weight_N, -1.5).requires_grad_()
        LanguageModeling().loss(Stats(logp_N=logp_N), row)[0].backward()
        assert torch.equal(LanguageModeling().logp_gradient(row), logp_N.grad)


def test_dpo_against_its_formula():
    (row,) = pack_step(pairs(1, (-2.0, -1.0)), 64)
    logp = torch.tensor([-0.5, -1.0, -2.0], requires_grad=True)
    loss, metrics = Dpo(beta=0.5).loss(Stats(logp_N=logp), row)
    margin = 0.5 * ((-1.5 - -2.0) - (-2.0 - -1.0))
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-margin))))
    values = means([metrics])
    assert values["rewards/chosen"] == pytest.approx(0.25)
    assert values["rewards/rejected"] == pytest.approx(-0.5)
    assert values["rewards/margins"] == pytest.approx(0.75)
    assert values["rewards/accuracies"] == 1.0
    assert values["logps/chosen"] == pytest.approx(-1.5)
    loss.backward()
    assert logp.grad is not None and logp.grad[0] < 0 < logp.grad[2]


def test_a_policy_equal_to_its_reference_has_margin_zero_and_loss_log_two():
    rows = pack_step(pairs(3, (-3.0, -1.0)), 5)
    stats = Stats(logp_N=torch.tensor([-1.0, -2.0, -1.0]))
    results = [Dpo(0.1).loss(stats, row) for row in rows]
    assert float(sum(loss for loss, _ in results)) == pytest.approx(math.log(2))
    assert means([m for _, m in results])["rewards/accuracies"] == 0.0


def test_sequence_logp_sums_each_sequence():
    (row,) = pack_step(pairs(1, (0.0, 0.0)), 64)
    assert sequence_logp(Stats(logp_N=torch.tensor([-1.0, -2.0, -4.0])), row).tolist() == [-3.0, -4.0]
