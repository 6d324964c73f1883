"""Bandits whose best policy is known: every algorithm reaches it, from several seeds."""

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import TrainSettings
from groundup.engine import train
from groundup.engine.phase import Offline
from groundup.objective import Grpo, Ppo
from groundup.objective.pairwise import Dpo
from groundup.store import Run
from groundup.store.files import read_jsonl

SEEDS = (0, 1, 2)
ARMS = 8
PLAIN = {
    "grpo": Grpo(loss_type="grpo"),
    "dapo": Grpo(loss_type="dapo", epsilon_high=0.28),
    "dr_grpo": Grpo(loss_type="dr_grpo", scale_rewards="none", max_completion_length=1),
    "rloo": Grpo(loss_type="rloo", baseline="leave_one_out", scale_rewards="none"),
    "ppo": Ppo(kl_coef=0.0),
}


SLOW = pytest.mark.slow


def best_arm(prompt):
    return (3 * prompt + 1) % ARMS


def worth(prompt, answer):
    """Each prompt has its own best arm; the others are worth less the farther they are."""
    away = abs(answer[0] - best_arm(prompt))
    return 1.0 if not away else 0.3 * (1.0 - away / ARMS)


def settings(**changes):
    return TrainSettings(
        **{"learning_rate": 1e-2, "lr_scheduler_type": "constant", "warmup_ratio": 0.0} | changes
    )


def fit(source, folder, steps, **changes):
    fit_on(source, source.model, source.objective, folder, steps, **changes)


def fit_on(source, model, objective, folder, steps, **changes):
    train(
        model,
        objective,
        source,
        total_steps=steps,
        epoch_at=float,
        settings=settings(**changes),
        stage=Run.open(folder).stage("policy"),
        device="cpu",
        evaluate=dict,
        title="",
    )


@torch.no_grad()
def probabilities(policy, prompt):
    """What the policy answers, and how likely."""
    return policy.logits(torch.tensor([prompt]))[0].softmax(-1)


def bandit(name, policy, seed, make_rollouts):
    """Four prompts, with many answers each."""
    many = {"epochs": 2} if name in ("dapo", "ppo") else {}
    shape = {"samples": 1, "batch": 32, "prompts": (1, 2, 3, 4) * 8}
    if name != "ppo":
        shape = {"samples": 32, "batch": 4, "prompts": (1, 2, 3, 4)}
    return make_rollouts(policy, PLAIN[name], worth, seed=seed, row_tokens=256, **shape, **many)


@pytest.mark.parametrize(
    "name", ["grpo", "rloo", "ppo", pytest.param("dapo", marks=SLOW), pytest.param("dr_grpo", marks=SLOW)]
)
def test_every_algorithm_finds_the_best_arm_of_every_prompt(name, make_policy, make_rollouts, tmp_path):
    for seed in SEEDS:
        policy = make_policy(seed, initializer_range=0.2)
        fit(bandit(name, policy, seed, make_rollouts), tmp_path / str(seed), 50)
        for prompt in (1, 2, 3, 4):
            found = probabilities(policy, prompt)
            assert found[best_arm(prompt)] > 0.8, (seed, prompt, found)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_an_adapter_alone_finds_it_too(name, make_policy, make_rollouts, tmp_path):
    """How likely an answer can become is bounded here by the head, which is frozen."""
    policy = make_policy(0, lora=True, initializer_range=0.2)
    fit(bandit(name, policy, 0, make_rollouts), tmp_path, 40, learning_rate=2e-2)
    for prompt in (1, 2, 3, 4):
        found = probabilities(policy, prompt)
        assert int(found.argmax()) == best_arm(prompt) and found.max() > 0.5, (prompt, found)


@pytest.mark.parametrize(
    "name, objective",
    [
        pytest.param("grpo", Grpo(loss_type="grpo", scale_rewards="none", beta=0.3), marks=SLOW),
        (
            "rloo",
            Grpo(loss_type="rloo", baseline="leave_one_out", scale_rewards="none", beta=0.3, kl_in="reward"),
        ),
    ],
)
def test_with_a_kl_penalty_the_policy_becomes_the_one_that_is_known_to_be_best(
    name, objective, make_policy, make_rollouts, tmp_path
):
    """max E[r] - beta KL(policy, reference): at reference x exp(r / beta), normalised (arXiv 2305.18290, eq. 4)."""
    policy, start = make_policy(3), make_policy(3)
    source = make_rollouts(
        policy, objective, worth, prompts=(1, 2), batch=2, samples=64, row_tokens=512, seed=3
    )
    fit(source, tmp_path, 100, learning_rate=1e-2, lr_scheduler_type="linear")
    for prompt in (1, 2):
        assert float((probabilities(policy, prompt) - best_policy(start, prompt, 0.3)).abs().max()) < 0.07


def best_policy(reference, prompt, beta):
    """Reference x exp(r / beta), normalised (arXiv 2305.18290, eq. 4)."""
    reward = torch.tensor([worth(prompt, [arm]) for arm in range(ARMS)])
    return (probabilities(reference, prompt).log() + reward / beta).softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_dpo_finds_the_best_policy_from_pairs_alone(seed, make_policy, tmp_path):
    """Which of two arms is preferred is drawn, P(a > b) = sigmoid(3 r(a) - 3 r(b)), and no reward is seen."""
    policy, start = make_policy(seed), make_policy(seed)
    rows = drawn_pairs(np.random.default_rng(seed), start, steps=32)
    source = Offline(lambda step: [rows[step % len(rows)]])
    fit_on(source, policy, Dpo(beta=1.0), tmp_path, 64, lr_scheduler_type="linear")
    for prompt in (1, 2):
        found, wanted = probabilities(policy, prompt), best_policy(start, prompt, 1 / 3)
        assert float((wanted - probabilities(start, prompt)).abs().max()) > 0.3, "there is a way to go"
        assert float((found - wanted).abs().max()) < 0.07, (prompt, found, wanted)


def drawn_pairs(draw, reference, steps, pairs=512):
    """Pairs of two arms that differ, preferred as Bradley and Terry have it; a row for each step."""
    logp = {prompt: probabilities(reference, prompt).log().tolist() for prompt in (1, 2)}
    rows = []
    for _ in range(steps):
        first, away, chance = (
            draw.integers(ARMS, size=pairs),
            draw.integers(1, ARMS, pairs),
            draw.random(pairs),
        )
        records = []
        for index in range(pairs):
            prompt, a, b = 1 + index % 2, int(first[index]), int(first[index] + away[index]) % ARMS
            if chance[index] > 1 / (1 + np.exp(3 * (worth(prompt, [b]) - worth(prompt, [a])))):
                a, b = b, a
            chains = tuple(Chain(np.array([prompt, arm]), np.array([False, True])) for arm in (a, b))
            records.append(Record(index, chains, {"ref_logp": (logp[prompt][a], logp[prompt][b])}))
        rows += pack_step(records, pairs)
    return rows


def test_two_runs_from_one_seed_are_the_same_bits(make_policy, make_rollouts, tmp_path):
    found = []
    for attempt in range(2):
        policy = make_policy(0)
        fit(
            make_rollouts(policy, PLAIN["ppo"], worth, samples=1, batch=4, epochs=2),
            tmp_path / str(attempt),
            6,
        )
        found.append({name: p.detach().clone() for name, p in policy.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    rewards = [
        line["reward"]
        for line in read_jsonl(Run.open(tmp_path / "0").stage("policy").metrics)
        if "reward" in line
    ]
    assert rewards
