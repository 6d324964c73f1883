"""How much better an answer, or a token of it, was than expected. Pure functions; NaN is a reward that is not known.

Shape letters: P prompts of a phase, G answers to each, Q sequences of a row, L tokens of the longest, N reads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["group", "leave_one_out"]
Scale = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to a standard deviation before dividing by it, as TRL does."""


def group_advantages(reward_PG: Tensor, baseline: Baseline, scale: Scale) -> Tensor:
    """Float32 [P, G]: the reward less what the group's answers got, over a spread; 0 where the reward is not known.

    baseline "group": the mean of the group (GRPO, arXiv 2402.03300, section 4.1.2). "leave_one_out": the mean of the
    others (RLOO, arXiv 2402.14740), which is G / (G - 1) times as far away.
    scale "group": the group's standard deviation, with Bessel's correction (GRPO, ibid.). "batch": that of all rewards
    (arXiv 2508.08221). "none": 1 (Dr. GRPO, arXiv 2503.20783).
    """
    mean_P1 = torch.nanmean(reward_PG, dim=1, keepdim=True)
    advantage_PG = reward_PG - mean_P1
    if baseline == "leave_one_out":
        known_P1 = (~reward_PG.isnan()).sum(dim=1, keepdim=True)
        advantage_PG = (
            advantage_PG * known_P1 / (known_P1 - 1)
        )  # a lone answer has nobody to compare with: NaN
    if scale == "group":
        advantage_PG = advantage_PG / (spread(reward_PG)[:, None] + EPSILON)
    elif scale == "batch":
        advantage_PG = advantage_PG / (spread(reward_PG.flatten()[None]) + EPSILON)
    return torch.nan_to_num(advantage_PG, nan=0.0, posinf=0.0, neginf=0.0)


def spread(reward_PG: Tensor) -> Tensor:
    """Standard deviation of each row's known rewards, with Bessel's correction; 0 for fewer than two."""
    known_P = (~reward_PG.isnan()).sum(dim=1)
    square_PG = (reward_PG - torch.nanmean(reward_PG, dim=1, keepdim=True)).square()
    variance_P = torch.nansum(square_PG, dim=1) / (known_P - 1).clamp_min(1)
    return torch.where(known_P > 1, variance_P.sqrt(), torch.zeros_like(variance_P))


def without_spread(reward_PG: Tensor) -> Tensor:
    """Bool [P]: groups whose answers all got the same, from which a group baseline learns nothing."""
    spread_P = spread(reward_PG)
    return torch.isclose(spread_P, torch.zeros_like(spread_P))


def generalized_advantages(
    reward_N: Tensor, value_N: Tensor, reads_Q: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimation (arXiv 1506.02438, equation 16), [N], each sequence by itself.

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}

    Behind a sequence's last token nothing more is expected, whether it ended or was cut off (as TRL has it).
    """
    reward_QL, there_QL = padded(reward_N, reads_Q)
    value_QL, _ = padded(value_N, reads_Q)
    advantage_QL = torch.zeros_like(reward_QL)
    after_Q = next_value_Q = torch.zeros_like(reward_QL[:, 0])
    for t in range(reward_QL.shape[1] - 1, -1, -1):
        delta_Q = reward_QL[:, t] + gamma * next_value_Q - value_QL[:, t]
        after_Q = torch.where(there_QL[:, t], delta_Q + gamma * lam * after_Q, after_Q)
        next_value_Q = torch.where(there_QL[:, t], value_QL[:, t], next_value_Q)
        advantage_QL[:, t] = after_Q
    return advantage_QL[there_QL]


def padded(number_N: Tensor, reads_Q: Tensor) -> tuple[Tensor, Tensor]:
    """[Q, L] with zeros behind each sequence's end, and where there is something, bool [Q, L]."""
    place_L = torch.arange(int(reads_Q.max()), device=number_N.device)
    there_QL = place_L < reads_Q[:, None]
    number_QL = number_N.new_zeros(there_QL.shape)
    number_QL[there_QL] = number_N
    return number_QL, there_QL


def whitened(number_N: Tensor, shift_mean: bool = True) -> Tensor:
    """Mean 0 and variance 1; without `shift_mean` the mean stays as it was. (InstructGPT's and TRL's PPO.)"""
    mean = number_N.mean()
    scaled_N = (number_N - mean) * torch.rsqrt(number_N.var(correction=min(1, len(number_N) - 1)) + 1e-8)
    return scaled_N if shift_mean else scaled_N + mean


def kl_estimate(logp_N: Tensor, ref_logp_N: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """Estimates of KL(policy, reference) at tokens that the policy drew, [N] (http://joschu.net/blog/kl-approx.html).

        log r = ref - logp        k1 = -log r        k3 = (r - 1) - log r

    Both are right on average; k3 is never negative and varies less.
    """
    log_ratio_N = ref_logp_N - logp_N
    return -log_ratio_N if estimator == "k1" else torch.expm1(log_ratio_N) - log_ratio_N
