"""Proximal policy optimisation with a value function, as RLHF uses it. Details and their sources: docs/rl.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.advantage import generalized_advantages, kl_estimate, whitened
from groundup.objective.answered import Answered, PolicyObjective, Prepared, each_sequence, each_token
from groundup.objective.base import Metrics, counted

POLICY, VALUE = frozenset({"logp", "entropy_seen"}), frozenset({"value"})
KL_COEF = "kl_coef"
LARGEST_ERROR = 0.2
"""Of the adaptive coefficient's controller (arXiv 1909.08593, section 2.2)."""


@dataclass(frozen=True)
class Ppo(PolicyObjective):
    """The clipped objective (arXiv 1707.06347, equation 7) with a clipped value loss.

        r_t       = -kl_coef KL_t, and at the last token the answer's score as well    (arXiv 1909.08593, equation 2)
        A, return = GAE(r, V), A + V
        policy    = mean max(-ratio A, -clip(ratio, 1 - cliprange, 1 + cliprange) A)   ratio = exp(logp - old_logp)
        value     = mean max((v - return)^2, (clip(v, V - cliprange_value, V + cliprange_value) - return)^2) / 2
        loss      = policy + vf_coef value

    Means are over a minibatch's tokens. Columns of a row: sequence `place` and `truncated`, token `old_logp`, `value`,
    and `ref_logp` where there is a reference. With `kl_target` the coefficient follows it (ibid., section 2.2):

        kl_coef *= 1 + clip(KL / kl_target - 1, -0.2, 0.2) x answers / kl_horizon
    """

    separate: bool = False
    """Policy and value stand on adapters of their own, and take turns."""
    kl_coef: float = 0.05
    kl_estimator: Literal["k1", "k3"] = "k1"
    kl_target: float | None = None
    kl_horizon: int = 10_000
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = False
    missing_eos_penalty: float | None = None

    needs: ClassVar[frozenset[str]] = POLICY | VALUE
    shown: ClassVar[Mapping[str, str]] = {
        "reward": "reward",
        "objective/kl": "kl",
        "policy/entropy_avg": "entropy",
        "loss/value_avg": "value loss",
        "completions/mean_length": "length",
    }

    @property
    def passes(self) -> tuple[frozenset[str], ...]:
        return (POLICY, VALUE) if self.separate else (self.needs,)

    def prepare(self, phase: Answered) -> Prepared:
        """Advantages, returns and weights for the rows of a phase, whose steps are minibatches."""
        rows = phase.rows
        kl_coef = phase.carry.get(KL_COEF, self.kl_coef)
        kl_N = [self._kl(row) for row in rows]
        score_Q = [self._scores(row, phase.reward_PG) for row in rows]
        known_N = [each_token(~score.isnan(), row) for score, row in zip(score_Q, rows)]
        reward_N = [
            _with_scores(-kl_coef * kl, score.nan_to_num(0.0), row)
            for kl, score, row in zip(kl_N, score_Q, rows)
        ]
        if self.whiten_rewards:
            reward_N = _all_whitened(reward_N, known_N, shift_mean=False)
        advantage_N = [
            generalized_advantages(reward, row.token["value"], row.reads_Q, self.gamma, self.lam)
            for reward, row in zip(reward_N, rows)
        ]
        return_N = [advantage + row.token["value"] for advantage, row in zip(advantage_N, rows)]
        metrics = self._measured(rows, kl_N, score_Q, return_N, kl_coef)
        advantage_N = _all_whitened(advantage_N, known_N, shift_mean=True)
        tokens, sequences = phase.step_sums([float(known.sum()) for known in known_N]), phase.step_sequences
        made = []
        for index, row in enumerate(rows):
            weight_N = known_N[index].float() / max(1.0, tokens[index])
            weighted = replace(row, weight_N=weight_N, weight_G=row.sequences_G.float() / sequences[index])
            columns = {"advantage": advantage_N[index], "return": return_N[index]}
            made.append(weighted.with_columns(token=columns))
        return Prepared(made, metrics, {KL_COEF: self._next_kl_coef(kl_coef, metrics)})

    def _kl(self, row: Batch) -> Tensor:
        if "ref_logp" not in row.token:
            return torch.zeros_like(row.token["old_logp"])
        return kl_estimate(row.token["old_logp"], row.token["ref_logp"], self.kl_estimator)

    def _scores(self, row: Batch, reward_PG: Tensor) -> Tensor:
        """What each answer got, [Q]; NaN where that is not known."""
        score_Q = reward_PG.flatten()[row.sequence["place"].long()]
        return score_Q - (self.missing_eos_penalty or 0.0) * row.sequence["truncated"]

    def _next_kl_coef(self, kl_coef: float, metrics: Metrics) -> float:
        if self.kl_target is None:
            return kl_coef
        total, answers = metrics["objective/kl"]
        error = total / answers / self.kl_target - 1
        return kl_coef * (1 + min(LARGEST_ERROR, max(-LARGEST_ERROR, error)) * answers / self.kl_horizon)

    def _measured(
        self,
        rows: Sequence[Batch],
        kl_N: Sequence[Tensor],
        score_Q: Sequence[Tensor],
        return_N: Sequence[Tensor],
        kl_coef: float,
    ) -> Metrics:
        """TRL's names and meanings: sums over an answer's tokens, means over answers."""
        answers = float(sum(len(row.reads_Q) for row in rows))
        known = torch.cat([score[~score.isnan()] for score in score_Q]).double()
        kl_Q = torch.cat([each_sequence(*at) for at in zip(kl_N, rows)]).double()
        surprise_Q = torch.cat([each_sequence(-row.token["old_logp"], row) for row in rows]).double()
        value, target = (
            torch.cat([row.token["value"] for row in rows]).double(),
            torch.cat(list(return_N)).double(),
        )
        unexplained = float((target - value).var(correction=0) / target.var(correction=0).clamp_min(1e-12))
        return {
            "objective/kl": (float(kl_Q.sum()), answers),
            "objective/entropy": (float(surprise_Q.sum()), answers),
            "objective/non_score_reward": (-kl_coef * float(kl_Q.sum()), answers),
            "objective/scores": (float(known.sum()), float(len(known))),
            "objective/rlhf_reward": (float(known.sum()) - kl_coef * float(kl_Q.sum()), answers),
            "objective/kl_coef": (kl_coef, 1.0),
            "val/explained_variance": (1.0 - unexplained, 1.0),
        }

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        """The policy's part, the value's, or both: as statistics are there."""
        terms: list[Tensor] = []
        metrics: Metrics = {}
        share = float(batch.weight_G.sum())
        if stats.logp_N is not None:
            policy, found = self._policy_loss(stats.logp_N, stats.entropy_N, batch)
            terms.append(policy)
            metrics |= found | {
                "loss": (float(policy.detach()), share),
                "loss/policy_avg": (float(policy.detach()), share),
            }
        if stats.value_N is not None:
            value, found = self._value_loss(stats.value_N, batch)
            terms.append(self.vf_coef * value)
            metrics |= found | {"loss/value_avg": (float(value.detach()), share)}
            above, below = metrics.get("loss", (0.0, 0.0))
            metrics["loss"] = (above + self.vf_coef * float(value.detach()), below)
        return torch.stack(terms).sum(), metrics

    def _policy_loss(self, logp_N: Tensor, entropy_N: Tensor | None, batch: Batch) -> tuple[Tensor, Metrics]:
        assert entropy_N is not None
        log_ratio_N = logp_N - batch.token["old_logp"]
        ratio_N = log_ratio_N.exp()
        plain_N = -batch.token["advantage"] * ratio_N
        clipped_N = -batch.token["advantage"] * ratio_N.clamp(1 - self.cliprange, 1 + self.cliprange)
        loss = (torch.maximum(plain_N, clipped_N) * batch.weight_N).sum()
        return loss, {
            "policy/approxkl_avg": counted(0.5 * log_ratio_N.square()),
            "policy/clipfrac_avg": counted(clipped_N > plain_N),
            "policy/entropy_avg": counted(entropy_N),
            "val/ratio": counted(ratio_N),
        }

    def _value_loss(self, value_N: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        old_N, target_N = batch.token["value"], batch.token["return"]
        near_N = torch.clamp(value_N, old_N - self.cliprange_value, old_N + self.cliprange_value)
        plain_N, clipped_N = (value_N - target_N).square(), (near_N - target_N).square()
        loss = 0.5 * (torch.maximum(plain_N, clipped_N) * batch.weight_N).sum()
        return loss, {"val/clipfrac_avg": counted(clipped_N > plain_N)}


def _with_scores(reward_N: Tensor, score_Q: Tensor, row: Batch) -> Tensor:
    """The answer's score on top of its last token's reward."""
    reward_N = reward_N.clone()
    reward_N[row.reads_Q.cumsum(0) - 1] += score_Q
    return reward_N


def _all_whitened(number_N: Sequence[Tensor], known_N: Sequence[Tensor], shift_mean: bool) -> list[Tensor]:
    """Whitened over the known tokens of all rows; zero elsewhere."""
    together, known = torch.cat(list(number_N)), torch.cat(list(known_N))
    changed = torch.zeros_like(together)
    if bool(known.any()):
        changed[known] = whitened(together[known], shift_mean)
    return list(changed.split([len(each) for each in number_N]))
