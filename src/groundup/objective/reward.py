"""The loss of a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics, Objective, counted


class BradleyTerry(Objective):
    """Which of two answers was preferred, from one number for each (arXiv 2203.02155, equation 1).

        loss = -log sigmoid(r(chosen) - r(rejected) - margin) + c (r(chosen) + r(rejected))^2

    margin (arXiv 2307.09288, equation 2) comes as a group column where the rows have one. c, TRL's
    `center_rewards_coefficient`, holds rewards around zero (arXiv 2312.09244, equation 2): the rest knows
    differences only.
    A sequence's number is read at its last token, the only read that it has.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    shown: ClassVar[Mapping[str, str]] = {"loss": "loss", "accuracy": "accuracy"}

    def __init__(self, center_rewards_coefficient: float | None = None) -> None:
        self.center = center_rewards_coefficient

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        assert stats.value_N is not None and len(stats.value_N) == len(batch.reads_Q)
        chosen_G, rejected_G = stats.value_N[0::2], stats.value_N[1::2]
        difference_G = chosen_G - rejected_G
        asked_G = difference_G - batch.group["margin"] if "margin" in batch.group else difference_G
        each_G = -F.logsigmoid(asked_G)
        if self.center is not None:
            each_G = each_G + self.center * (chosen_G + rejected_G) ** 2
        plain = {
            "loss": each_G,
            "accuracy": (difference_G > 0).float(),
            "margin": difference_G,
            "mean_reward": (chosen_G + rejected_G) / 2,
        }
        metrics = {name: counted(values) for name, values in plain.items()}
        return (each_G * batch.weight_G).sum(), metrics
