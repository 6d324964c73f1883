"""What is measured of answers and rewards, under TRL's names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from groundup.objective import Metrics
from groundup.objective.advantage import spread, without_spread
from groundup.rollout.answers import Answer, Judgement


def of_answers(answers: Sequence[Answer]) -> Metrics:
    """Lengths in tokens, and how many answers the limit cut off."""
    length = [len(answer.token) for answer in answers]
    ended = [len(answer.token) for answer in answers if answer.finished] or [0]
    return {
        "completions/mean_length": (float(sum(length)), float(len(length))),
        "completions/min_length": (float(min(length)), 1.0),
        "completions/max_length": (float(max(length)), 1.0),
        "completions/mean_terminated_length": (float(sum(ended)), float(len(ended))),
        "completions/min_terminated_length": (float(min(ended)), 1.0),
        "completions/max_terminated_length": (float(max(ended)), 1.0),
        "completions/clipped_ratio": (float(sum(not a.finished for a in answers)), float(len(answers))),
    }


def of_rewards(judged: Judgement) -> Metrics:
    """Means over the answers whose reward is known; standard deviations are a phase's."""
    total_PG, each = judged.total_PG, judged.each
    metrics: Metrics = {"reward": known_mean(total_PG), "reward_std": (_spread(total_PG), 1.0)}
    for name, reward_PG in each.items():
        metrics[f"rewards/{name}/mean"] = known_mean(reward_PG)
        metrics[f"rewards/{name}/std"] = (_spread(reward_PG), 1.0)
    if total_PG.shape[1] > 1:
        flat_P = without_spread(total_PG)
        metrics["frac_reward_zero_std"] = (float(flat_P.sum()), float(len(flat_P)))
    metrics |= {name: (value, 1.0) for name, value in judged.told.items()}
    unknown = int(total_PG.isnan().sum())
    return metrics | ({"rewards/unknown_ratio": (float(unknown), float(total_PG.numel()))} if unknown else {})


def known_mean(reward: Tensor) -> tuple[float, float]:
    known = reward[~reward.isnan()]
    return float(known.double().sum()), float(known.numel())


def _spread(reward_PG: Tensor) -> float:
    return float(spread(reward_PG.flatten()[None]))
