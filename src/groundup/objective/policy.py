"""Losses over answers that the policy itself gave, with a group's other answers as the baseline.

One class for GRPO and its relatives, which differ in how the advantage is made (`advantage.py`), in what a loss is
divided by, in where the ratio is clipped, and in where the distance to the reference counts.

Columns of a row: sequence `place` (which of the phase's P x G answers it is) and `truncated` (1: cut off by the limit);
token `old_logp`, where a phase has several steps, and `ref_logp`, where there is a reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.advantage import Baseline, Scale, group_advantages, kl_estimate
from groundup.objective.answered import (
    Answered,
    PolicyObjective,
    Prepared,
    by_place,
    each_sequence,
    each_token,
    first_of,
)
from groundup.objective.base import Metrics, counted

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "rloo"]


@dataclass(frozen=True)
class Grpo(PolicyObjective):
    """Group relative policy optimisation (arXiv 2402.03300, equation 3) and its relatives.

        ratio_t = exp(logp_t - old_t)
        loss_t  = -min(ratio_t A, clip(ratio_t, 1 - epsilon, 1 + epsilon_high) A) + beta ratio_t k3_t

    The ratio before k3 makes the gradient of the KL term right (DeepSeek-V3.2, arXiv 2512.02556, section 3.1; TRL's
    `use_bias_correction_kl`, which is on there). A step's loss is the sum of loss_t times the weight of its token:

        grpo     1 / (sequences x tokens of the sequence)                  arXiv 2402.03300, equation 3
        bnpo     1 / tokens of the step                                    TRL's name
        dapo     1 / tokens of a step, on average over the phase           arXiv 2503.14476, equation 8
        dr_grpo  1 / (sequences x `max_completion_length`)                 arXiv 2503.20783
        rloo     1 / sequences, the whole answer being one action: its ratio is the product over its tokens
                                                                           arXiv 2402.14740

    `kl_in` "reward" takes beta times the summed k1 off an answer's reward instead (RLOO, ibid., and TRL).
    """

    loss_type: LossType = "dapo"
    baseline: Baseline = "group"
    scale_rewards: Scale = "group"
    epsilon: float = 0.2
    epsilon_high: float = 0.2
    beta: float = 0.0
    kl_in: Literal["loss", "reward"] = "loss"
    max_completion_length: int = 0
    """Needed by `dr_grpo`."""
    mask_truncated_completions: bool = False

    needs: ClassVar[frozenset[str]] = frozenset({"logp", "entropy_seen"})
    shown: ClassVar[Mapping[str, str]] = {
        "reward": "reward",
        "loss": "loss",
        "kl": "kl",
        "entropy": "entropy",
        "completions/mean_length": "length",
    }

    def prepare(self, phase: Answered) -> Prepared:
        """Advantages and weights for the rows of a phase."""
        rows, reward_PG = phase.rows, phase.reward_PG
        metrics: Metrics = {}
        if self.beta and self.kl_in == "reward":
            kl_N = [kl_estimate(row.token["old_logp"], row.token["ref_logp"], "k1") for row in rows]
            kl_Q = [each_sequence(*at) for at in zip(kl_N, rows)]
            reward_PG = reward_PG - self.beta * by_place(rows, kl_Q, reward_PG)
            metrics["kl"] = counted(torch.cat(kl_N))
        advantage = group_advantages(reward_PG, self.baseline, self.scale_rewards).flatten()
        counted_N = [each_token(self._counted(row), row) for row in rows]
        tokens = [float(each.sum()) for each in counted_N]
        divided_by = zip(phase.step_sequences, phase.step_sums(tokens))
        made = []
        for row, each_N, (sequences, step_tokens) in zip(rows, counted_N, divided_by, strict=True):
            divisor = self._divisor(row, sequences, step_tokens, sum(tokens) / len(phase.steps))
            weighted = replace(row, weight_N=each_N / divisor, weight_G=row.sequences_G.float() / sequences)
            columns = {"advantage": advantage[row.sequence["place"].long()]}
            made.append(weighted.with_columns(sequence=columns))
        return Prepared(made, metrics, phase.carry)

    def _counted(self, row: Batch) -> Tensor:
        """1 for sequences that count, [Q]."""
        truncated_Q = row.sequence["truncated"]
        return 1.0 - truncated_Q if self.mask_truncated_completions else torch.ones_like(truncated_Q)

    def _divisor(
        self, row: Batch, sequences: float, step_tokens: float, phase_tokens: float
    ) -> Tensor | float:
        """What a token's loss is divided by, [N] or one number."""
        if self.loss_type == "grpo":
            return sequences * each_token(row.reads_Q.float(), row)
        if self.loss_type == "dr_grpo":
            return sequences * self.max_completion_length
        if self.loss_type == "rloo":
            return sequences
        return max(1.0, step_tokens if self.loss_type == "bnpo" else phase_tokens)

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        logp_N = stats.logp_N
        assert logp_N is not None and stats.entropy_N is not None
        log_ratio_N = logp_N - batch.token.get("old_logp", logp_N.detach())
        advantage_Q = batch.sequence["advantage"]
        kl_N = None
        if self.loss_type == "rloo":
            ratio = each_sequence(log_ratio_N, batch).exp()
            advantage, weight = advantage_Q, first_of(batch.weight_N, batch)
        else:
            ratio, advantage, weight = log_ratio_N.exp(), each_token(advantage_Q, batch), batch.weight_N
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon_high)
        loss = -(torch.minimum(ratio * advantage, clipped * advantage) * weight).sum()
        if self.beta and self.kl_in == "loss":
            # Each token's estimate beside its own ratio, also where the loss takes the answer as one action.
            kl_N = log_ratio_N.exp() * kl_estimate(logp_N, batch.token["ref_logp"], "k3")
            loss = loss + self.beta * (kl_N * batch.weight_N).sum()
        return loss, self._measured(loss, ratio, advantage, kl_N, stats, batch)

    def _measured(
        self, loss: Tensor, ratio: Tensor, advantage: Tensor, kl_N: Tensor | None, stats: Stats, batch: Batch
    ) -> Metrics:
        assert stats.entropy_N is not None
        low = (ratio < 1 - self.epsilon) & (advantage < 0)
        high = (ratio > 1 + self.epsilon_high) & (advantage > 0)
        metrics = {
            "loss": (float(loss.detach()), float(batch.weight_G.sum())),
            "entropy": counted(stats.entropy_N),
            "clip_ratio/low_mean": counted(low),
            "clip_ratio/low_min": (float(_shares(low, batch).min()), 1.0),
            "clip_ratio/high_mean": counted(high),
            "clip_ratio/high_max": (float(_shares(high, batch).max()), 1.0),
            "clip_ratio/region_mean": counted(low | high),
        }
        if kl_N is not None:
            metrics["kl"] = counted(kl_N)
        if "drawn_logp" in batch.token and "old_logp" not in batch.token and stats.logp_N is not None:
            metrics |= logp_difference(stats.logp_N.detach(), batch.token["drawn_logp"])
        return metrics


def logp_difference(logp_N: Tensor, drawn_logp_N: Tensor) -> Metrics:
    """How far the trainer's and the generator's log-probabilities of the same tokens are apart; TRL's names."""
    apart_N = (logp_N - drawn_logp_N).abs()
    return {
        "sampling/sampling_logp_difference/mean": counted(apart_N),
        "sampling/sampling_logp_difference/max": (float(apart_N.max()), 1.0),
    }


def _shares(clipped: Tensor, row: Batch) -> Tensor:
    """Of each answer's tokens the share that is clipped, [Q]; the answer itself where it is one action."""
    if len(clipped) == len(row.reads_Q):
        return clipped.float()
    return each_sequence(clipped.float(), row) / row.reads_Q
