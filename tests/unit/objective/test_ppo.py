"""PPO against the formulas written out token by token."""

import math
import statistics

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.objective import Answered, Ppo, means

LENGTHS = [3, 1, 4, 2]
TRUNCATED = [0, 1, 0, 0]
SCORES = torch.tensor([[1.0], [2.0], [-0.5], [0.25]])


def numbers(name, centre=-1.0):
    generator = np.random.default_rng(len(name) + 7)
    return [generator.normal(centre, 0.3, length) for length in LENGTHS]


OLD, REF, VALUE = numbers("old"), numbers("reference"), numbers("v", 0.5)
LOGP, NOW = numbers("new log"), numbers("value now", 0.5)


def record(place):
    token = np.array([1, 2, *[3 + place] * LENGTHS[place]], dtype=np.int32)
    columns = {"place": (float(place),), "truncated": (float(TRUNCATED[place]),)}
    return Record(place, (Chain(token, np.arange(len(token)) >= 2),), columns)


def column(row, values):
    return torch.tensor(
        np.concatenate([values[int(place)] for place in row.sequence["place"]]), dtype=torch.float32
    )


def prepared(objective, row_tokens=100, parts=((0, 1, 2, 3),), scores=SCORES, carry=None):
    rows, of_parts = [], []
    for places in parts:
        packed = pack_step([record(place) for place in places], row_tokens)
        of_parts.append(list(range(len(rows), len(rows) + len(packed))))
        rows += packed
    columns = {"old_logp": OLD, "ref_logp": REF, "value": VALUE}
    rows = [row.with_columns(token={n: column(row, values) for n, values in columns.items()}) for row in rows]
    return objective.prepare(Answered(rows, of_parts, scores, carry or {})), of_parts


def by_the_book(kl_coef, kl, gamma, lam, penalty=0.0, whiten_rewards=False):
    """Rewards, advantages and returns of every token, flat."""
    reward = [[-kl_coef * kl(o, r) for o, r in zip(old, ref)] for old, ref in zip(OLD, REF)]
    for place, score in enumerate(SCORES.flatten().tolist()):
        reward[place][-1] += score - penalty * TRUNCATED[place]
    if whiten_rewards:
        flat = [x for part in reward for x in part]
        mean, deviation = statistics.mean(flat), statistics.stdev(flat)
        reward = [[(x - mean) / deviation + mean for x in part] for part in reward]
    advantage, returns = [], []
    for r, v in zip(reward, VALUE):
        found, after, next_value = [], 0.0, 0.0
        for t in range(len(r) - 1, -1, -1):
            after = r[t] + gamma * next_value - v[t] + gamma * lam * after
            next_value = v[t]
            found.insert(0, after)
        advantage += found
        returns += [a + b for a, b in zip(found, v)]
    mean, deviation = statistics.mean(advantage), statistics.stdev(advantage)
    return [(a - mean) / deviation for a in advantage], returns


ESTIMATES = {
    "k1": lambda old, ref: old - ref,
    "k3": lambda old, ref: math.exp(ref - old) - 1 - (ref - old),
}


@pytest.mark.parametrize("row_tokens", [6, 100])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kl_estimator": "k3", "gamma": 0.9, "lam": 0.7},
        {"missing_eos_penalty": 1.5, "kl_coef": 0.5},
        {"whiten_rewards": True},
    ],
    ids=["defaults", "k3", "penalty", "whitened"],
)
def test_advantages_and_returns(settings, row_tokens):
    objective = Ppo(**settings)
    done, _ = prepared(objective, row_tokens)
    wanted_advantage, wanted_returns = by_the_book(
        objective.kl_coef,
        ESTIMATES[objective.kl_estimator],
        objective.gamma,
        objective.lam,
        objective.missing_eos_penalty or 0.0,
        objective.whiten_rewards,
    )
    starts = np.cumsum([0, *LENGTHS[:-1]])
    for row in done.rows:
        first = 0
        for place, reads in zip(row.sequence["place"].long().tolist(), row.reads_Q.tolist()):
            span, own = slice(starts[place], starts[place] + reads), slice(first, first + reads)
            assert row.token["advantage"][own].tolist() == pytest.approx(wanted_advantage[span], abs=1e-4)
            assert row.token["return"][own].tolist() == pytest.approx(wanted_returns[span], abs=1e-4)
            first += reads


def test_policy_and_value_loss_together_and_apart():
    together = Ppo(vf_coef=0.3)
    done, _ = prepared(together)
    (row,) = done.rows
    logp, value = column(row, LOGP), column(row, NOW)
    stats = Stats(logp_N=logp, value_N=value, entropy_N=torch.ones_like(logp))
    loss, metrics = together.loss(stats, row)
    policy = squares = 0.0
    old, before, target = column(row, OLD), column(row, VALUE), row.token["return"]
    for t in range(sum(LENGTHS)):
        ratio, advantage = math.exp(logp[t] - old[t]), float(row.token["advantage"][t])
        policy += max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2))
        near = min(max(value[t], before[t] - 0.2), before[t] + 0.2)
        squares += max((value[t] - target[t]) ** 2, (near - target[t]) ** 2)
    wanted = policy / sum(LENGTHS) + 0.3 * 0.5 * float(squares) / sum(LENGTHS)
    assert float(loss) == pytest.approx(wanted, abs=1e-5)

    one, found_one = together.loss(Stats(logp_N=logp, entropy_N=stats.entropy_N), row)
    other, found_other = together.loss(Stats(value_N=value), row)
    assert float(one + other) == pytest.approx(wanted, abs=1e-5)
    both = means([found_one, found_other])
    assert both == pytest.approx(means([metrics]), abs=1e-6)
    assert both["loss"] == pytest.approx(wanted, abs=1e-5)


def test_minibatches_are_means_over_their_own_tokens():
    done, parts = prepared(Ppo(), parts=((0, 1), (2, 3)))
    for part in parts:
        assert sum(float(done.rows[i].weight_N.sum()) for i in part) == pytest.approx(1.0)
        assert sum(float(done.rows[i].weight_G.sum()) for i in part) == pytest.approx(1.0)


def test_an_unknown_score_counts_in_no_loss():
    scores = SCORES.clone()
    scores[2] = math.nan
    done, _ = prepared(Ppo(), scores=scores)
    (row,) = done.rows
    place = row.sequence["place"].repeat_interleave(row.reads_Q)
    assert (row.weight_N[place == 2] == 0).all() and float(row.weight_N.sum()) == pytest.approx(1.0)
    assert all(bool(column.isfinite().all()) for column in row.token.values())


def test_metrics_by_trls_names():
    done, _ = prepared(Ppo(kl_coef=0.1))
    metrics = means([done.metrics])
    kl = statistics.mean(sum(old - ref) for old, ref in zip(OLD, REF))
    assert metrics["objective/kl"] == pytest.approx(kl, abs=1e-5)
    assert metrics["objective/scores"] == pytest.approx(float(SCORES.mean()))
    assert metrics["objective/non_score_reward"] == pytest.approx(-0.1 * kl, abs=1e-5)
    assert metrics["objective/rlhf_reward"] == pytest.approx(float(SCORES.mean()) - 0.1 * kl, abs=1e-5)
    assert metrics["objective/entropy"] == pytest.approx(statistics.mean(-sum(old) for old in OLD), abs=1e-5)


@pytest.mark.parametrize("target, direction", [(1e-3, 1), (1e3, -1)])
def test_the_kl_coefficient_follows_its_target(target, direction):
    objective = Ppo(kl_coef=0.1, kl_estimator="k3", kl_target=target, kl_horizon=40)
    done, _ = prepared(objective)
    assert done.carry["kl_coef"] == pytest.approx(0.1 * (1 + direction * 0.2 * 4 / 40))
    again, _ = prepared(objective, carry=done.carry)
    assert means([again.metrics])["objective/kl_coef"] == pytest.approx(done.carry["kl_coef"])
    fixed, _ = prepared(Ppo(kl_coef=0.1))
    assert fixed.carry["kl_coef"] == 0.1


@pytest.mark.parametrize(
    ("narrow", "metric"),
    [({"cliprange": 0.01}, "policy/clipfrac_avg"), ({"cliprange_value": 0.01}, "val/clipfrac_avg")],
    ids=str,
)
def test_narrower_ranges_clip_more(narrow, metric):
    """Each range moves its own share of clipped tokens, and the loss never becomes smaller by it."""

    def at(**settings):
        objective = Ppo(vf_coef=0.3, **settings)
        done, _ = prepared(objective)
        row = done.rows[0]
        stats = Stats(logp_N=column(row, LOGP), entropy_N=torch.zeros(sum(LENGTHS)), value_N=column(row, NOW))
        loss, metrics = objective.loss(stats, row)
        return float(loss), means([metrics])

    (wide_loss, wide), (narrow_loss, close) = (
        at(cliprange=5.0, cliprange_value=5.0),
        at(**{"cliprange": 5.0, "cliprange_value": 5.0} | narrow),
    )
    assert wide[metric] == 0 and close[metric] > 0
    assert narrow_loss > wide_loss
