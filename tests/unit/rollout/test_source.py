"""Phases: what is in them, that they are functions of the seed, and that the first ratio is exactly one."""

import math

import numpy as np
import pytest
import torch

from groundup.engine.phase import load_phase, save_phase
from groundup.objective import Grpo, Ppo, means
from groundup.rollout.answers import Answer
from groundup.rollout.source import record_of, split_group


def worth(prompt, answer):
    return float(sum(answer) % 5) / 5 + 0.01 * len(answer)


def everything(phase):
    """All tensors of a phase."""
    found = {}
    for index, row in enumerate(phase.rows):
        for name in ("token_T", "position_T", "parent_S", "source_N", "target_N", "weight_N", "weight_G"):
            found[f"{index}/{name}"] = getattr(row, name)
        found |= {f"{index}/{k}": v for k, v in {**row.token, **row.sequence}.items()}
    return found


def assert_same_phase(one, other):
    left, right = everything(one), everything(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert (one.first_step, one.steps, dict(one.metrics), dict(one.carry)) == (
        other.first_step,
        other.steps,
        dict(other.metrics),
        dict(other.carry),
    )


OBJECTIVES = {
    "grpo": (Grpo(beta=0.1, epsilon_high=0.3), {"samples": 4, "epochs": 2, "parts": 2}),
    "ppo": (Ppo(kl_coef=0.1), {"samples": 1, "epochs": 2, "parts": 2}),
}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_before_the_first_update_the_ratio_is_one_to_the_bit(
    kind, temperature, lora, make_policy, make_rollouts
):
    objective, shape = OBJECTIVES[kind]
    policy = make_policy(1, lora)
    if lora:
        jolt(policy)
    source = make_rollouts(
        policy,
        objective,
        worth,
        batch=2,
        length=5,
        stop=(0,),
        temperature=temperature,
        row_tokens=16,
        **shape,
    )
    phase = source.phase(0, {})
    assert len(phase.rows) >= 2 and len(phase.steps) == 4
    for row in phase.rows:
        for needs in source.objective.passes:
            stats = source.model(row, needs)
            if stats.logp_N is not None:
                assert torch.equal(stats.logp_N.detach(), row.token["old_logp"])
                assert stats.logp_N.requires_grad
            if stats.value_N is not None:
                assert torch.equal(stats.value_N.detach(), row.token["value"])
    # A fresh reference is the policy itself.
    assert all(torch.equal(row.token["ref_logp"], row.token["old_logp"]) for row in phase.rows)


def jolt(policy):
    """An adapter that says something, as one that the stage goes on with."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(name)))


def test_generated_and_recomputed_log_probabilities_agree(make_policy, make_rollouts):
    source = make_rollouts(make_policy(2), Grpo(), worth, batch=4, epochs=2, length=6, stop=(0,))
    phase = source.phase(0, {})
    for row in phase.rows:
        assert torch.allclose(row.token["drawn_logp"], row.token["old_logp"], atol=1e-5)
    assert means([phase.metrics])["sampling/sampling_logp_difference/max"] < 1e-5


def test_the_policy_is_trained_at_the_temperature_that_it_is_drawn_at(make_policy, make_rollouts):
    policy = make_policy(2)
    source = make_rollouts(policy, Grpo(), worth, batch=2, epochs=2, length=3, temperature=0.5)
    (row, *_) = source.phase(0, {}).rows
    with torch.no_grad():
        hidden = policy.read(row)
        logits = policy.head.logits(hidden) / 0.5
    wanted = logits.log_softmax(-1).gather(1, row.target_N[:, None])[:, 0]
    assert torch.allclose(row.token["old_logp"], wanted, atol=1e-5)


def test_a_phase_is_a_function_of_step_seed_and_weights(make_policy, make_rollouts):
    objective, shape = OBJECTIVES["grpo"]
    make = lambda seed: make_rollouts(make_policy(1), objective, worth, batch=2, length=4, seed=seed, **shape)  # noqa: E731
    assert_same_phase(make(0).phase(8, {}), make(0).phase(8, {}))
    one, other, later = make(0).phase(0, {}), make(1).phase(0, {}), make(0).phase(4, {})
    answers = [torch.cat([row.target_N for row in phase.rows]).tolist() for phase in (one, other, later)]
    assert answers[0] != answers[1] and answers[0] != answers[2]


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_phase_comes_back_from_its_file_bit_by_bit(kind, make_policy, make_rollouts, tmp_path):
    objective, shape = OBJECTIVES[kind]
    phase = make_rollouts(make_policy(1), objective, worth, batch=2, length=4, row_tokens=12, **shape).phase(
        4, {}
    )
    save_phase(tmp_path / "phase.safetensors", phase)
    assert_same_phase(phase, load_phase(tmp_path / "phase.safetensors"))


def test_epochs_permute_parts_and_never_repack(make_policy, make_rollouts):
    source = make_rollouts(
        make_policy(1), Grpo(), worth, prompts=range(1, 7), batch=1, parts=6, epochs=5, samples=2
    )
    phase = source.phase(0, {})
    epochs = [phase.steps[6 * e : 6 * e + 6] for e in range(5)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    prompts = [{int(p) // 2 for i in step for p in phase.rows[i].sequence["place"]} for step in epochs[0]]
    assert all(len(step) == 1 for step in prompts) and set.union(*prompts) == set(range(6))


@pytest.mark.parametrize("layout", ["shared", "packed", "single"])
def test_the_loss_is_the_same_in_every_layout_and_row_length(layout, make_policy, make_rollouts):
    losses = {}
    for row_tokens, how in ((200, "shared"), (9, layout)):
        policy = make_policy(1)
        source = make_rollouts(
            policy,
            Grpo(loss_type="grpo"),
            worth,
            batch=2,
            length=5,
            stop=(0,),
            row_tokens=row_tokens,
            layout=how,
        )
        phase = source.phase(0, {})
        loss = 0.0
        for row in phase.rows:
            part, _ = source.objective.loss(source.model(row, source.objective.needs), row)
            part.backward()
            loss += float(part.detach())
        losses[row_tokens] = (loss, policy.head.weight.grad.clone(), len(phase.rows))
    assert losses[200][2] < losses[9][2]
    assert losses[200][0] == pytest.approx(losses[9][0], abs=1e-5)
    assert torch.allclose(losses[200][1], losses[9][1], atol=1e-5)


def test_a_group_that_no_row_can_hold_is_split(make_rollouts, make_policy):
    asked = make_rollouts(make_policy(), Grpo(), worth).questions[0]
    answers = [Answer((5,) * n, (-1.0,) * n, n % 2 == 0, "") for n in (3, 1, 4, 2, 6)]
    record = record_of(asked, answers, 10)
    pieces = split_group(record, 8, "shared")
    assert len(pieces) > 1
    assert [p for piece in pieces for p in piece.sequence["place"]] == [10, 11, 12, 13, 14]
    assert [t for piece in pieces for t in piece.sequence["truncated"]] == [1, 1, 0, 0, 0]
    assert [len(chain.token) for piece in pieces for chain in piece.chains] == [4, 2, 5, 3, 7]
    assert split_group(record, 100, "shared") == [record]


def test_dynamic_sampling_replaces_groups_without_a_spread(make_rollouts, make_policy):
    """Prompts 1 and 2 always get the same; the others differ."""
    flat = lambda prompt, answer: 1.0 if prompt in (1, 2) else worth(prompt, answer)  # noqa: E731
    prompts = range(1, 8)
    plain = make_rollouts(make_policy(), Grpo(), flat, prompts=prompts, batch=4, length=3)
    dynamic = make_rollouts(make_policy(), Grpo(), flat, prompts=prompts, batch=4, length=3, resamples=4)
    asked = {1: 0, 0: 0}
    for step in range(6):
        for resampled, source in enumerate((plain, dynamic)):
            phase = source.phase(step, {})
            groups = torch.cat([row.sequence["advantage"] for row in phase.rows]).view(4, -1)
            asked[resampled] += int((groups == 0).all(dim=1).sum())
    assert asked[0] > 0 == asked[1]
    assert means([dynamic.phase(0, {}).metrics])["resampled_ratio"] >= 0.0


def test_metrics_of_a_phase_have_trls_names(make_rollouts, make_policy):
    unknown = lambda prompt, answer: math.nan if prompt == 1 else worth(prompt, answer)  # noqa: E731
    phase = make_rollouts(make_policy(), Grpo(), unknown, length=6, stop=(0,)).phase(0, {})
    found = means([phase.metrics])
    lengths = np.concatenate([row.reads_Q.numpy() for row in phase.rows])
    assert found["completions/mean_length"] == pytest.approx(lengths.mean())
    assert (found["completions/min_length"], found["completions/max_length"]) == (
        lengths.min(),
        lengths.max(),
    )
    truncated = torch.cat([row.sequence["truncated"] for row in phase.rows])
    assert found["completions/clipped_ratio"] == pytest.approx(float(truncated.mean()))
    assert found["rewards/unknown_ratio"] == pytest.approx(1 / 4)
    assert {"reward", "reward_std", "rewards/judge/mean", "rewards/judge/std", "frac_reward_zero_std"} <= set(
        found
    )
    assert found["reward"] == pytest.approx(found["rewards/judge/mean"])
