"""Losses over (chosen, rejected) pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics


def sequence_logp(stats: Stats, batch: Batch) -> Tensor:
    """Summed log-probability of each sequence's scored tokens, float32 [Q]."""
    assert stats.logp_N is not None
    return torch.segment_reduce(stats.logp_N, "sum", lengths=batch.reads_Q, unsafe=True)


class Dpo:
    """Direct preference optimisation, the sigmoid loss (arXiv 2305.18290, equation 7).

        loss = -log sigmoid(beta * ((logp(chosen) - ref(chosen)) - (logp(rejected) - ref(rejected))))

    The reference's log-probabilities come with the batch as the sequence column `ref_logp`. Rewards, margins and
    accuracies are TRL's: beta times the log-ratio to the reference, and the share of pairs with a positive margin.
    """

    needs = frozenset({"logp"})

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def logp_gradient(self, batch: Batch) -> None:
        """The loss bends with the log-probabilities: nothing is known beforehand."""

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        logp_Q = sequence_logp(stats, batch)
        reward_Q = self.beta * (logp_Q - batch.sequence["ref_logp"])
        chosen_G, rejected_G = reward_Q[0::2], reward_Q[1::2]
        margin_G = chosen_G - rejected_G
        each_G = -F.logsigmoid(margin_G)
        pairs = float(len(each_G))
        plain = {
            "loss": each_G,
            "rewards/chosen": chosen_G,
            "rewards/rejected": rejected_G,
            "rewards/margins": margin_G,
            "rewards/accuracies": (margin_G > 0).float(),
            "logps/chosen": logp_Q[0::2],
            "logps/rejected": logp_Q[1::2],
        }
        metrics = {name: (float(values.detach().double().sum()), pairs) for name, values in plain.items()}
        return (each_G * batch.weight_G).sum(), metrics


class Preference:
    """How far a model by itself prefers the chosen answers: no reference, and lengths do not count.

    `preference_margin` is log-probability a token, chosen minus rejected, in nats; `preference_accuracy` is the
    share of pairs in which it is positive. (SimPO's reward without its factor, arXiv 2405.14734, equation 4.)
    """

    needs = frozenset({"logp"})

    def logp_gradient(self, batch: Batch) -> None:
        """The loss bends with the log-probabilities: nothing is known beforehand."""

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        mean_Q = sequence_logp(stats, batch) / batch.reads_Q
        margin_G = mean_Q[0::2] - mean_Q[1::2]
        pairs = float(len(margin_G))
        metrics = {
            "preference_margin": (float(margin_G.detach().double().sum()), pairs),
            "preference_accuracy": (float((margin_G > 0).sum()), pairs),
        }
        return -(margin_G * batch.weight_G).sum(), metrics
