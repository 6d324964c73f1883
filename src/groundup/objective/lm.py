"""Next-token prediction: pretraining and supervised fine-tuning."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics, Objective, counted


class LanguageModeling(Objective):
    """Mean negative log-likelihood, in nats, over the scored tokens of the step."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    def logp_gradient(self, batch: Batch) -> Tensor:
        return -batch.weight_N

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        assert stats.logp_N is not None
        loss = -(stats.logp_N * batch.weight_N).sum()
        return loss, {"loss": counted(-stats.logp_N)}
