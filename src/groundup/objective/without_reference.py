"""Losses over (chosen, rejected) pairs that need no reference: m(y) is log p(y|x) a token of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics, Objective, counted
from groundup.objective.pairwise import pair_metrics, sequence_logp, smoothed


class _Alone(Objective):
    """What both share. As in TRL, rewards are beta times m, and `logps/…` are m."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    shown: ClassVar[Mapping[str, str]] = {"loss": "loss", "rewards/accuracies": "accuracy"}


class SimPo(_Alone):
    """Simple preference optimisation (arXiv 2405.14734, equation 6).

        loss = -log sigmoid(beta m(chosen) - beta m(rejected) - gamma)

    label_smoothing as in `Dpo`, and as in TRL.
    """

    def __init__(self, beta: float, simpo_gamma: float | None = None, label_smoothing: float = 0.0) -> None:
        self.beta = beta
        self.gamma = 0.5 if simpo_gamma is None else simpo_gamma
        self.label_smoothing = label_smoothing

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        mean_Q = sequence_logp(stats, batch) / batch.reads_Q
        reward_Q = self.beta * mean_Q
        each_G = smoothed(reward_Q[0::2] - reward_Q[1::2] - self.gamma, self.label_smoothing)
        return (each_G * batch.weight_G).sum(), pair_metrics(each_G, reward_Q, mean_Q)


class Orpo(_Alone):
    """Odds ratio preference optimisation (arXiv 2403.07691, equations 6 and 7), where beta is the paper's lambda.

        odds(y) = exp m(y) / (1 - exp m(y))
        loss    = NLL(chosen) - beta log sigmoid(log odds(chosen) - log odds(rejected))

    NLL is the mean over the step's chosen tokens, the other part the mean over its pairs: the batch brings a weight for
    each, and rejected tokens have a `weight_N` of zero. NLL sees answers, as in the paper; TRL's sees prompts too.
    """

    token_share: ClassVar[tuple[float, ...]] = (1.0, 0.0)

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        assert stats.logp_N is not None
        mean_Q = sequence_logp(stats, batch) / batch.reads_Q
        log_odds_Q = mean_Q - log1mexp(mean_Q)
        log_odds_G = log_odds_Q[0::2] - log_odds_Q[1::2]
        ratio_G = F.logsigmoid(log_odds_G)
        loss = -(stats.logp_N * batch.weight_N).sum() - self.beta * (ratio_G * batch.weight_G).sum()
        metrics = pair_metrics(ratio_G, self.beta * mean_Q, mean_Q)
        return loss, metrics | {
            "loss": (float(loss.detach() / batch.weight_G[0]), float(len(ratio_G))),
            "nll_loss": counted(-stats.logp_N[batch.weight_N > 0]),
            "log_odds_ratio": counted(ratio_G),
            "log_odds_chosen": counted(log_odds_G),
        }


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp x) of x < 0, exact on both sides of -log 2 (Maechler 2012, cran.r-project.org/package=Rmpfr)."""
    small = x > -0.6931471805599453
    near = torch.log(-torch.expm1(torch.where(small, x, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(small, -1.0, x)))
    return torch.where(small, near, far)
