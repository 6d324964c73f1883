"""Losses over answers that the policy itself gave, with a group's other answers as the baseline.

One class for GRPO and its relatives, which differ in how the advantage is made (`advantage.py`), in what a loss is
divided by, in where the ratio is clipped, and in where the distance to the reference counts.

Columns of a row: sequence `place` (which of the phase's P x G answers it is) and `truncated` (1: cut off by the limit);
token `old_logp`, where a phase has several steps, and `ref_logp`, where there is a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.advantage import Baseline, Scale, group_advantages, kl_estimate
from groundup.objective.base import Metrics

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "rloo"]


@dataclass(frozen=True)
class Prepared:
    """A phase's rows with advantages and weights, what was measured on the way, and what the next phase must know."""

    rows: list[Batch]
    metrics: Metrics
    carry: Mapping[str, float]


def each_token(number_Q: Tensor, row: Batch) -> Tensor:
    """A number a sequence as one a read, [N]."""
    return number_Q.repeat_interleave(row.reads_Q)


def each_sequence(number_N: Tensor, row: Batch) -> Tensor:
    """A row's reads summed over each sequence, [Q]."""
    return torch.segment_reduce(number_N, "sum", lengths=row.reads_Q, unsafe=True)


def by_place(rows: Sequence[Batch], number_Q: Sequence[Tensor], like_PG: Tensor) -> Tensor:
    """Numbers of sequences, row by row, at their places among the phase's answers, [P, G]."""
    found = torch.zeros_like(like_PG).flatten()
    for row, each_Q in zip(rows, number_Q, strict=True):
        found[row.sequence["place"].long()] = each_Q
    return found.view_as(like_PG)


@dataclass(frozen=True)
class Grpo:
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

    needs = frozenset({"logp", "entropy_seen"})
    shown = {  # noqa: RUF012
        "reward": "reward",
        "loss": "loss",
        "kl": "kl",
        "entropy": "entropy",
        "completions/mean_length": "length",
    }

    def logp_gradient(self, batch: Batch) -> None:
        """The loss bends with the log-probabilities: nothing is known beforehand."""

    def prepare(
        self,
        rows: Sequence[Batch],
        parts: Sequence[Sequence[int]],
        reward_PG: Tensor,
        carry: Mapping[str, float],
    ) -> Prepared:
        """Advantages and weights for the rows of a phase. parts: the rows that make up each step."""
        metrics: Metrics = {}
        if self.beta and self.kl_in == "reward":
            kl_N = [kl_estimate(row.token["old_logp"], row.token["ref_logp"], "k1") for row in rows]
            reward_PG = reward_PG - self.beta * by_place(
                rows, [each_sequence(*at) for at in zip(kl_N, rows)], reward_PG
            )
            metrics["kl"] = (float(sum(kl.double().sum() for kl in kl_N)), float(sum(map(len, kl_N))))
        advantage = group_advantages(reward_PG, self.baseline, self.scale_rewards).flatten()
        counted_N = [each_token(self._counted(row), row) for row in rows]
        phase_tokens = sum(float(each.sum()) for each in counted_N)
        made: dict[int, Batch] = {}
        for part in parts:
            sequences = sum(len(rows[index].reads_Q) for index in part)
            step_tokens = sum(float(counted_N[index].sum()) for index in part)
            for index in part:
                row = rows[index]
                weight_N = counted_N[index] / self._divisor(
                    row, sequences, step_tokens, phase_tokens / len(parts)
                )
                columns = {"advantage": advantage[row.sequence["place"].long()]}
                weighted = replace(row, weight_N=weight_N, weight_G=row.sequences_G.float() / sequences)
                made[index] = weighted.with_columns(sequence=columns)
        return Prepared([made[index] for index in range(len(rows))], metrics, carry)

    def _counted(self, row: Batch) -> Tensor:
        """1 for sequences that count, [Q]."""
        truncated_Q = row.sequence["truncated"]
        return 1.0 - truncated_Q if self.mask_truncated_completions else torch.ones_like(truncated_Q)

    def _divisor(self, row: Batch, sequences: int, step_tokens: float, phase_tokens: float) -> Tensor | float:
        """What a token's loss is divided by, [N] or one number."""
        if self.loss_type == "grpo":
            return sequences * each_token(row.reads_Q.float(), row)
        if self.loss_type == "dr_grpo":
            return float(sequences * self.max_completion_length)
        if self.loss_type == "rloo":
            return float(sequences)
        return max(1.0, step_tokens if self.loss_type == "bnpo" else phase_tokens)

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        logp_N = stats.logp_N
        assert logp_N is not None and stats.entropy_N is not None
        log_ratio_N = logp_N - batch.token.get("old_logp", logp_N.detach())
        advantage_Q = batch.sequence["advantage"]
        kl_N = None
        if self.loss_type == "rloo":
            ratio = each_sequence(log_ratio_N, batch).exp()
            advantage, weight = advantage_Q, _first(batch.weight_N, batch)
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
        means = {
            "entropy": stats.entropy_N,
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low | high,
        } | ({} if kl_N is None else {"kl": kl_N})
        if "drawn_logp" in batch.token and "old_logp" not in batch.token and stats.logp_N is not None:
            means["sampling/sampling_logp_difference/mean"] = (stats.logp_N - batch.token["drawn_logp"]).abs()
        metrics = {name: _mean(values) for name, values in means.items()}
        return metrics | {"loss": (float(loss.detach()), float(batch.weight_G.sum()))}


def _first(number_N: Tensor, row: Batch) -> Tensor:
    """Each sequence's first number, [Q]."""
    return number_N[row.reads_Q.cumsum(0) - row.reads_Q]


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.detach().double().sum()), float(values.numel())
