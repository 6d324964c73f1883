"""The losses of GRPO's family against their formulas, answer by answer, whatever the rows."""

import math

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.objective import Answered, Grpo, means, step_total
from groundup.objective.advantage import group_advantages

PROMPTS, SAMPLES = 3, 2
LENGTHS = [4, 1, 2, 3, 5, 2]
TRUNCATED = [0, 0, 1, 0, 0, 1]
REWARDS = torch.tensor([[1.0, 0.0], [0.5, 2.0], [0.0, 0.3]])


def record(prompt):
    chains = []
    places = [prompt * SAMPLES + g for g in range(SAMPLES)]
    for place in places:
        token = np.array([1, 2, 3, *[4 + place] * LENGTHS[place]], dtype=np.int32)
        chains.append(Chain(token, np.arange(len(token)) >= 3))
    columns = {
        "place": tuple(map(float, places)),
        "truncated": tuple(float(TRUNCATED[place]) for place in places),
    }
    return Record(prompt, tuple(chains), columns)


def numbers(name):
    """For each answer a number a token."""
    generator = np.random.default_rng(len(name))
    return [generator.normal(-1.0, 0.4, length) for length in LENGTHS]


def column(row, values):
    return torch.tensor(
        np.concatenate([values[int(place)] for place in row.sequence["place"]]), dtype=torch.float32
    )


def prepared(objective, row_tokens, parts=1, reward=REWARDS):
    """Rows with old and reference log-probabilities, in as many steps."""
    rows, of_parts = [], []
    for chunk in np.array_split(np.arange(PROMPTS), parts):
        packed = pack_step([record(p) for p in chunk], row_tokens)
        of_parts.append(list(range(len(rows), len(rows) + len(packed))))
        rows += packed
    rows = [
        row.with_columns(token={name: column(row, numbers(name)) for name in ("old_logp", "ref_logp")})
        for row in rows
    ]
    done = objective.prepare(Answered(rows, of_parts, reward, {}))
    return done.rows, of_parts, done.metrics


def step_loss(objective, rows):
    results = [
        objective.loss(
            Stats(logp_N=column(row, numbers("logp")), entropy_N=torch.ones(len(row.weight_N))), row
        )
        for row in rows
    ]
    return float(sum(loss for loss, _ in results)), means([step_total(metrics for _, metrics in results)])


def by_the_book(objective, advantage, places, per_step_tokens):
    """The step's loss over these answers, in plain Python."""
    logp, old, ref = numbers("logp"), numbers("old_logp"), numbers("ref_logp")
    total = 0.0
    for place in places:
        if objective.mask_truncated_completions and TRUNCATED[place]:
            continue
        token_loss = []
        for t in range(LENGTHS[place]):
            ratio = math.exp(logp[place][t] - old[place][t])
            clipped = min(max(ratio, 1 - objective.epsilon), 1 + objective.epsilon_high)
            each = -min(ratio * advantage[place], clipped * advantage[place])
            if objective.beta and objective.kl_in == "loss":
                log_ratio = ref[place][t] - logp[place][t]
                each += objective.beta * ratio * (math.exp(log_ratio) - log_ratio - 1)
            token_loss.append(each)
        over = {
            "grpo": len(places) * LENGTHS[place],
            "dr_grpo": len(places) * objective.max_completion_length,
        }.get(objective.loss_type, per_step_tokens)
        total += sum(token_loss) / over
    return total


@pytest.mark.parametrize("row_tokens", [12, 200])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "grpo"},
        {"loss_type": "grpo", "beta": 0.3, "epsilon_high": 0.4},
        {"loss_type": "bnpo", "mask_truncated_completions": True},
        {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "max_completion_length": 9},
        {"loss_type": "grpo", "mask_truncated_completions": True, "baseline": "leave_one_out"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_steps_loss_is_the_formulas_however_it_is_packed(settings, row_tokens):
    objective = Grpo(**settings)
    rows, _, _ = prepared(objective, row_tokens)
    assert (len(rows) == 1) == (row_tokens == 200)
    advantage = group_advantages(REWARDS, objective.baseline, objective.scale_rewards).flatten().tolist()
    masked = [i for i in range(6) if not (objective.mask_truncated_completions and TRUNCATED[i])]
    wanted = by_the_book(objective, advantage, range(6), sum(LENGTHS[i] for i in masked))
    loss, metrics = step_loss(objective, rows)
    assert loss == pytest.approx(wanted, abs=1e-5) == metrics["loss"]


def test_dapo_weighs_tokens_of_all_steps_alike_and_bnpo_those_of_its_own():
    advantage = group_advantages(REWARDS, "group", "group").flatten().tolist()
    for loss_type in ("dapo", "bnpo"):
        objective = Grpo(loss_type=loss_type)
        rows, parts, _ = prepared(objective, 200, parts=3)
        for p, part in enumerate(parts):
            places = [2 * p, 2 * p + 1]
            tokens = sum(LENGTHS) / 3 if loss_type == "dapo" else sum(LENGTHS[i] for i in places)
            loss, _ = step_loss(objective, [rows[i] for i in part])
            assert loss == pytest.approx(by_the_book(objective, advantage, places, tokens), abs=1e-5)


def test_rloo_takes_an_answer_as_one_action_and_kl_off_its_reward():
    objective = Grpo("rloo", "leave_one_out", "none", beta=0.2, kl_in="reward")
    rows, _, found = prepared(objective, 12)
    logp, old, ref = numbers("logp"), numbers("old_logp"), numbers("ref_logp")
    kl = [sum(o - r for o, r in zip(*pair)) for pair in zip(old, ref)]
    reward = [r - 0.2 * k for r, k in zip(REWARDS.flatten().tolist(), kl)]
    wanted = 0.0
    for place in range(6):
        advantage = reward[place] - reward[place ^ 1]
        ratio = math.exp(sum(logp[place] - old[place]))
        wanted -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) / 6
    loss, _ = step_loss(objective, rows)
    assert loss == pytest.approx(wanted, abs=1e-5)
    assert means([found])["kl"] == pytest.approx(sum(kl) / sum(LENGTHS), abs=1e-5)


def test_without_an_old_column_the_ratio_is_one_and_the_gradient_is_the_policy_gradient():
    objective = Grpo(loss_type="grpo")
    rows, _, _ = prepared(objective, 200)
    (row,) = rows
    row = row.with_columns()
    del row.token["old_logp"]
    logp = column(row, numbers("logp")).requires_grad_()
    loss, metrics = objective.loss(Stats(logp_N=logp, entropy_N=torch.ones_like(logp)), row)
    loss.backward()
    advantage = row.sequence["advantage"].repeat_interleave(row.reads_Q)
    assert torch.allclose(logp.grad, -advantage * row.weight_N)
    assert means([metrics])["clip_ratio/region_mean"] == 0.0


def test_an_answer_whose_reward_is_unknown_moves_nothing():
    reward = REWARDS.clone()
    reward[1, 0] = math.nan
    rows, _, _ = prepared(Grpo(loss_type="grpo"), 200, reward=reward)
    assert rows[0].sequence["advantage"][2] == 0.0


def clipped_share(objective, advantage, low):
    """Of each answer's tokens the share that is clipped from below or above, in plain Python."""
    shares = []
    for new, old, gain in zip(numbers("logp"), numbers("old_logp"), advantage):
        ratio = np.exp(new - old)
        clipped = (ratio < 1 - objective.epsilon) if low else (ratio > 1 + objective.epsilon_high)
        shares.append(float(np.mean(clipped & ((gain < 0) if low else (gain > 0)))))
    return shares


@pytest.mark.parametrize("row_tokens", [12, 200])
def test_metrics_have_trls_names_and_are_a_steps_however_it_is_packed(row_tokens):
    objective = Grpo(beta=0.1)
    rows, _, _ = prepared(objective, row_tokens)
    assert (len(rows) == 1) == (row_tokens == 200)
    _, metrics = step_loss(objective, rows)
    clip = {"low_mean", "low_min", "high_mean", "high_max", "region_mean"}
    assert set(metrics) == {"loss", "kl", "entropy", *(f"clip_ratio/{name}" for name in clip)}
    assert metrics["clip_ratio/region_mean"] == pytest.approx(
        metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"]
    )
    assert 0 < metrics["clip_ratio/region_mean"] < 1
    advantage = group_advantages(REWARDS, "group", "group").flatten().tolist()
    low, high = (clipped_share(objective, advantage, low) for low in (True, False))
    assert metrics["clip_ratio/low_min"] == pytest.approx(min(low))
    assert metrics["clip_ratio/high_max"] == pytest.approx(max(high)) and len({*high}) > 2


def test_a_steps_extremes_are_over_its_rows_and_its_sums_add_up():
    rows = [
        {"a_min": (2.0, 1.0), "b/max": (3.0, 1.0), "n": (1.0, 2.0)},
        {"a_min": (1.0, 1.0), "n": (3.0, 2.0)},
    ]
    assert step_total(rows) == {"a_min": (1.0, 1.0), "b/max": (3.0, 1.0), "n": (4.0, 4.0)}
