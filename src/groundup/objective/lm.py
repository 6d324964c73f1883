"""Next-token prediction: pretraining and supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor

from groundup.batch.types import Batch, Stats
from groundup.objective.base import Metrics


class LanguageModeling:
    """Mean negative log-likelihood, in nats, over the scored tokens of the step."""

    needs = frozenset({"logp"})

    def logp_gradient(self, batch: Batch) -> Tensor:
        return -batch.weight_N

    def loss(self, stats: Stats, batch: Batch) -> tuple[Tensor, Metrics]:
        assert stats.logp_N is not None
        loss = -(stats.logp_N * batch.weight_N).sum()
        total = -float(stats.logp_N.detach().double().sum())
        return loss, {"loss": (total, float(len(stats.logp_N)))}
