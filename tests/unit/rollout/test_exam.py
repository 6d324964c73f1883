"""What a policy's held-out prompts are answered with: greedily, or drawn as in training."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from groundup.objective import Grpo
from groundup.stages.policy import Exam

PROMPTS = (1, 2, 3) * 200


@pytest.fixture
def take(make_policy, make_rollouts, tmp_path):
    """The exam's reward, which is the mean of the answers' tokens."""
    policy = make_policy(0, initializer_range=0.3)
    source = make_rollouts(policy, Grpo(), lambda prompt, answer: float(answer[0]), prompts=PROMPTS)

    def taken(eval_temperature, seed=0, **decoding):
        settings = SimpleNamespace(
            eval_temperature=eval_temperature,
            num_eval_prompts=len(PROMPTS),
            sample_count=0,
            sample_prompts=[],
            sample_tokens=1,
        )
        context = SimpleNamespace(
            settings=settings,
            recipe=SimpleNamespace(seed=seed, chat=None),
            rehearse=False,
            few=list,
            stage=SimpleNamespace(samples=tmp_path / "samples.jsonl"),
        )
        rollouts = replace(source, decoding=replace(source.decoding, **decoding))
        return Exam(context, rollouts, list(source.questions)).take()["eval_reward"]

    with torch.no_grad():
        taken.p_PV = torch.stack(
            [policy.logits(torch.tensor([prompt]))[0].softmax(-1) for prompt in (1, 2, 3)]
        )
    return taken


def test_zero_is_greedy(take):
    assert take(0.0) == pytest.approx(float(take.p_PV.argmax(-1).double().mean()))


def test_answers_are_drawn_at_it(take):
    """Means of 600 draws, whose standard error is below 0.1."""
    for temperature in (1.0, 0.5):
        p_PV = (take.p_PV.log() / temperature).softmax(-1)
        expected = float((p_PV * torch.arange(8)).sum(-1).mean())
        assert take(temperature) == pytest.approx(expected, abs=0.3)
        assert abs(take(0.0) - expected) > 0.5, "greedy answers are told apart"


def test_draws_are_the_same_each_time_and_another_seed_has_others(take):
    assert take(1.0) == take(1.0) != take(1.0, seed=1)


def test_they_are_drawn_as_in_training(take):
    assert take(1.0, top_k=1) == take(0.0)
