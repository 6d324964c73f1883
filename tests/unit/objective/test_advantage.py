"""Advantages against formulas written out, one sequence or group at a time."""

import math
import statistics

import pytest
import torch

from groundup.objective.advantage import (
    generalized_advantages,
    group_advantages,
    kl_estimate,
    spread,
    whitened,
    without_spread,
)

REWARDS = [[1.0, 0.0, 0.5, 0.25], [2.0, 2.0, 2.0, 2.0], [0.0, 3.0, -1.0, 1.0]]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_group_advantages_against_their_formulas(baseline, scale):
    every = [reward for group in REWARDS for reward in group]
    wanted = []
    for group in REWARDS:
        for index, reward in enumerate(group):
            others = group if baseline == "group" else group[:index] + group[index + 1 :]
            over = {"group": statistics.stdev(group), "batch": statistics.stdev(every)}.get(scale)
            wanted.append((reward - statistics.mean(others)) / (1.0 if over is None else over + 1e-4))
    found = group_advantages(torch.tensor(REWARDS), baseline, scale)
    assert found.flatten().tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_an_answer_without_a_reward_is_in_no_mean_and_gets_nothing(baseline):
    reward_PG = torch.tensor([[1.0, math.nan, 0.0, 4.0], [math.nan, math.nan, math.nan, 5.0]])
    found = group_advantages(reward_PG, baseline, "group")
    alone = group_advantages(torch.tensor([[1.0, 0.0, 4.0]]), baseline, "group")
    assert found[0, [0, 2, 3]].tolist() == pytest.approx(alone[0].tolist())
    assert found[0, 1] == 0.0 and found[1].tolist() == [0.0] * 4


def test_groups_without_a_spread_are_told():
    assert without_spread(torch.tensor(REWARDS)).tolist() == [False, True, False]
    assert spread(torch.tensor(REWARDS))[2] == pytest.approx(statistics.stdev(REWARDS[2]))


def test_gae_is_the_discounted_sum_of_deltas_in_each_sequence():
    gamma, lam = 0.9, 0.8
    reward = [[0.1, -0.2, 1.0], [2.0], [0.0, 0.5, -1.0, 0.3, 0.7]]
    value = [[0.5, 0.4, 0.3], [1.5], [0.2, 0.1, 0.0, -0.3, 0.6]]
    wanted = []
    for r, v in zip(reward, value):
        after = [*v[1:], 0.0]
        delta = [r[t] + gamma * after[t] - v[t] for t in range(len(r))]
        wanted += [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(r))) for t in range(len(r))]
    flat = [torch.tensor([x for part in parts for x in part]) for parts in (reward, value)]
    found = generalized_advantages(*flat, torch.tensor([3, 1, 5]), gamma, lam)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_lambda_one_and_gamma_one_is_the_reward_to_come_less_the_value():
    reward, value = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])
    found = generalized_advantages(reward, value, torch.tensor([3]), 1.0, 1.0)
    assert found.tolist() == [6.0 - 10.0, 5.0 - 20.0, 3.0 - 30.0]


def test_whitening():
    numbers = torch.tensor([3.0, 5.0, 10.0, 2.0])
    white = whitened(numbers)
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white.std().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(whitened(numbers, shift_mean=False), white + 5.0)
    assert whitened(torch.tensor([4.0])).tolist() == [0.0], "one number alone has no spread"


def test_both_kl_estimates_are_right_on_average():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    exact = float((policy * (policy / reference).log()).sum())
    for estimator in ("k1", "k3"):
        estimate = kl_estimate(policy.log(), reference.log(), estimator)
        assert float((policy * estimate).sum()) == pytest.approx(exact, abs=1e-6)
    assert (kl_estimate(policy.log(), reference.log(), "k3") >= 0).all()
    assert (kl_estimate(policy.log(), reference.log(), "k1") < 0).any()
