"""Losses over (chosen, rejected) pairs that compare the model with a reference.

In all of them r(y) = log p(y|x) - log ref(y|x), summed over the answer's tokens; the second comes with the batch as the
sequence column `ref_logp`. Rewards, margins and accuracies are TRL's: beta times r, and the share of pairs with a
positive margin.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics, Objective, counted


def sequence_logp(stats: Stats, batch: Batch) -> Tensor:
    """Summed log-probability of each sequence's scored tokens, float32 [Q]."""
    assert stats.logp_N is not None
    return torch.segment_reduce(stats.logp_N, "sum", lengths=batch.reads_Q, unsafe=True)


def smoothed(margin_G: Tensor, label_smoothing: float) -> Tensor:
    """-log sigmoid(margin), or its mean with that of the pair turned round, which has this weight."""
    loss_G = -F.logsigmoid(margin_G)
    if label_smoothing:
        loss_G = (1 - label_smoothing) * loss_G - label_smoothing * F.logsigmoid(-margin_G)
    return loss_G


def pair_metrics(each_G: Tensor, reward_Q: Tensor, logp_Q: Tensor) -> Metrics:
    """TRL's numbers of a row: the loss, rewards [Q] and log-probabilities [Q], chosen before rejected."""
    chosen_G, rejected_G = reward_Q[0::2], reward_Q[1::2]
    plain = {
        "loss": each_G,
        "rewards/chosen": chosen_G,
        "rewards/rejected": rejected_G,
        "rewards/margins": chosen_G - rejected_G,
        "rewards/accuracies": (chosen_G > rejected_G).float(),
        "logps/chosen": logp_Q[0::2],
        "logps/rejected": logp_Q[1::2],
    }
    return {name: counted(values) for name, values in plain.items()}


class _Pairs(Objective):
    """What the losses here share: all but the loss of a pair."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    shown: ClassVar[Mapping[str, str]] = {"loss": "loss", "rewards/accuracies": "accuracy"}

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        logp_Q = sequence_logp(stats, batch)
        ratio_Q = logp_Q - batch.sequence["ref_logp"]
        each_G = self.each(ratio_Q, batch)
        return (each_G * batch.weight_G).sum(), pair_metrics(each_G, self.beta * ratio_Q, logp_Q)

    @abstractmethod
    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        """The loss of each pair [G], from the log-ratios to the reference."""

    def margin(self, ratio_Q: Tensor) -> Tensor:
        """beta (r(chosen) - r(rejected)), [G]."""
        reward_Q = self.beta * ratio_Q
        return reward_Q[0::2] - reward_Q[1::2]


class Dpo(_Pairs):
    """Direct preference optimisation (arXiv 2305.18290, equation 7).

        loss = -log sigmoid(beta (r(chosen) - r(rejected)))

    With label_smoothing e it is the conservative one, for pairs of which a share e is the wrong way round
    (https://ericmitchell.ai/cdpo.pdf): (1 - e) loss(chosen, rejected) + e loss(rejected, chosen).
    """

    def __init__(self, beta: float, label_smoothing: float = 0.0) -> None:
        super().__init__(beta)
        self.label_smoothing = label_smoothing

    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        return smoothed(self.margin(ratio_Q), self.label_smoothing)


class Hinge(_Pairs):
    """The margin loss of SLiC-HF (arXiv 2305.10425, equation 1) on log-ratios, as RSO has it (arXiv 2309.06657, 3.2).

    loss = max(0, 1 - beta (r(chosen) - r(rejected)))
    """

    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        return torch.relu(1 - self.margin(ratio_Q))


class Ipo(_Pairs):
    """Identity preference optimisation (arXiv 2310.12036, equation 17), where beta is the paper's tau.

        loss = (r(chosen)/|chosen| - r(rejected)/|rejected| - 1 / (2 beta))^2

    r is taken a token, as in TRL, whose authors asked the paper's: else the square grows with the length.
    """

    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        mean_Q = ratio_Q / batch.reads_Q
        return (mean_Q[0::2] - mean_Q[1::2] - 1 / (2 * self.beta)) ** 2


class Robust(_Pairs):
    """DPO's loss, unbiased where a share e of the pairs is the wrong way round (arXiv 2403.00409, section 3).

    loss = ((1 - e) DPO(chosen, rejected) - e DPO(rejected, chosen)) / (1 - 2 e)
    """

    def __init__(self, beta: float, label_smoothing: float) -> None:
        super().__init__(beta)
        self.label_smoothing = label_smoothing

    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        margin_G, flipped = self.margin(ratio_Q), self.label_smoothing
        kept_G = -(1 - flipped) * F.logsigmoid(margin_G) + flipped * F.logsigmoid(-margin_G)
        return kept_G / (1 - 2 * flipped)


class SigmoidNorm(_Pairs):
    """DPO with log-ratios a token, so that length by itself earns nothing (Tülu 3, arXiv 2411.15124, section 5).

    loss = -log sigmoid(beta r(chosen)/|chosen| - beta r(rejected)/|rejected|)
    """

    def each(self, ratio_Q: Tensor, batch: Batch) -> Tensor:
        return -F.logsigmoid(self.margin(ratio_Q / batch.reads_Q))


class Preference(Objective):
    """How far a model by itself prefers the chosen answers: no reference, and lengths do not count.

    `preference_margin` is log-probability a token, chosen minus rejected, in nats; `preference_accuracy` is the
    share of pairs in which it is positive. (SimPO's reward without its factor, arXiv 2405.14734, equation 4.)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        mean_Q = sequence_logp(stats, batch) / batch.reads_Q
        margin_G = mean_Q[0::2] - mean_Q[1::2]
        metrics = {"preference_margin": counted(margin_G), "preference_accuracy": counted(margin_G > 0)}
        return -(margin_G * batch.weight_G).sum(), metrics
