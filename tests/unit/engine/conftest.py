"""A toy to train in milliseconds: of a model, the loop knows only what it says about a row."""

import numpy as np
import pytest
import torch
from torch import nn

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.config.schema import TrainSettings
from groundup.engine import Offline, train
from groundup.objective import LanguageModeling
from groundup.store import Run

VOCABULARY = 7


class Bigrams(nn.Module):
    """Log-probabilities of the next token by the last one alone, and a bias: one matrix, one vector."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(vocabulary, vocabulary, generator=generator))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, batch, needs, gradient_N=None):
        logits_NV = self.weight[batch.token_T[batch.source_N]] + self.bias
        return Stats(logp_N=logits_NV.log_softmax(-1).gather(1, batch.target_N[:, None])[:, 0])


def toy_record(index: int) -> Record:
    """A text of 4 tokens and more, all but the first scored."""
    token = np.random.default_rng(index).integers(0, VOCABULARY, 4 + index).astype(np.int32)
    return Record(index, (Chain(token, np.arange(len(token)) > 0),))


def toy_rows(step: int):
    """Two of five records a step, each in a row of its own."""
    return pack_step([toy_record((2 * step + i) % 5) for i in range(2)], 8, "single")


def toy_settings(**changes) -> TrainSettings:
    return TrainSettings(**{"learning_rate": 0.1, "logging_steps": 2, "save_steps": 4} | changes)


class Toy:
    """What the tests train, in `stage`."""

    Bigrams = Bigrams
    record = staticmethod(toy_record)
    rows = staticmethod(toy_rows)
    settings = staticmethod(toy_settings)

    def __init__(self, folder) -> None:
        self.stage = Run.open(folder).stage("sft")

    def fit(
        self, model, *, rows=toy_rows, source=None, objective=None, evaluate=dict, total_steps=10, **changes
    ):
        """Train and give the outcome."""
        return train(
            model,
            objective or LanguageModeling(),
            source or Offline(rows),
            total_steps=total_steps,
            epoch_at=lambda step: 2 * step / 5,
            settings=toy_settings(**changes),
            stage=self.stage,
            device="cpu",
            evaluate=evaluate,
            title="Training",
        )


@pytest.fixture
def toy(tmp_path) -> Toy:
    return Toy(tmp_path / "run")


@pytest.fixture
def other_toy(tmp_path) -> Toy:
    return Toy(tmp_path / "other")
