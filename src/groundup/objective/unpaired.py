"""KTO: answers with a label, good or bad, instead of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics, Objective, counted
from groundup.objective.pairwise import sequence_logp


class Kto(Objective):
    """Kahneman-Tversky optimisation (arXiv 2402.01306, equation 7); r as in `pairwise`.

        loss(good) = weight(good) (1 - sigmoid(beta (r - kl)))
        loss(bad)  = weight(bad)  (1 - sigmoid(beta (kl - r)))
        kl         = max(0, mean of r over the step's prompts, each with the answer to another one)

    kl is a number of the step, computed without gradient before its rows train. It comes as the group column `kl`, the
    label as the group column `label` (1 or 0); each group is one sequence.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    shown: ClassVar[Mapping[str, str]] = {"loss": "loss", "kl": "kl"}

    def __init__(self, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> None:
        self.beta = beta
        self.desirable_weight, self.undesirable_weight = desirable_weight, undesirable_weight

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        logp_Q = sequence_logp(stats, batch)
        ratio_Q = logp_Q - batch.sequence["ref_logp"]
        good_Q, kl_Q = batch.group["label"] > 0.5, batch.group["kl"]
        sign_Q = torch.where(good_Q, 1.0, -1.0)
        weight_Q = torch.where(good_Q, self.desirable_weight, self.undesirable_weight)
        each_Q = weight_Q * (1 - torch.sigmoid(self.beta * sign_Q * (ratio_Q - kl_Q)))
        metrics = {"loss": counted(each_Q), "kl": counted(kl_Q)}
        for side, of_Q in (("chosen", good_Q), ("rejected", ~good_Q)):
            for name, values_Q in (("rewards", self.beta * ratio_Q), ("logps", logp_Q)):
                metrics[f"{name}/{side}"] = counted(values_Q[of_Q])
        return (each_Q * batch.weight_G).sum(), metrics
