"""A toy to train in milliseconds: the loop knows of a model only that it is called with a row and what to say."""

import numpy as np
import pytest
import torch
from torch import nn

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.store import Run

VOCABULARY = 7


class Bigrams(nn.Module):
    """Log-probabilities of the next token by the last one alone, with a bias: one matrix and one vector."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(vocabulary, vocabulary, generator=generator))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def forward(self, batch, needs):
        logits_NV = self.weight[batch.token_T[batch.source_N]] + self.bias
        logp_N = logits_NV.log_softmax(-1).gather(1, batch.target_N[:, None])[:, 0]
        return Stats(logp_N=logp_N)


RECORDS = [
    Record(
        index,
        (
            Chain(
                np.random.default_rng(index).integers(0, VOCABULARY, 4 + index).astype(np.int32),
                np.arange(4 + index) > 0,
            ),
        ),
    )
    for index in range(5)
]


def rows_of(step):
    """Two of the records a step, in rows of their own."""
    return pack_step([RECORDS[(2 * step) % 5], RECORDS[(2 * step + 1) % 5]], 8)


@pytest.fixture
def stage(tmp_path):
    return Run.open(tmp_path / "run").stage("sft")
