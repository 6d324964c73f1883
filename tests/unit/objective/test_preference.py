"""Each preference loss on numbers that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.config.preference import Loss
from groundup.objective import (
    PREFERENCE_LOSSES,
    BradleyTerry,
    Dpo,
    Hinge,
    Ipo,
    Kto,
    Orpo,
    Robust,
    SigmoidNorm,
    SimPo,
    means,
)

CHOSEN, REJECTED = [-0.5, -1.0], [-2.0]
"""Log-probabilities of two tokens and of one."""
REFERENCE = (-2.0, -1.0)
RATIOS = (0.5, -1.0)


def chain(tokens, prompt):
    token = np.array(tokens, dtype=np.int32)
    return Chain(token, np.arange(len(token)) >= prompt)


def pairs(count=1, **columns):
    return [Record(i, (chain([1, 2, 3, 4], 2), chain([1, 2, 5], 2)), **columns) for i in range(count)]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def value(objective, **columns):
    """The loss of one pair, and its metrics."""
    (row,) = pack_step(pairs(**columns), 64)
    loss, metrics = objective.loss(Stats(logp_N=torch.tensor(CHOSEN + REJECTED)), row)
    return loss.item(), means([metrics])


def test_every_loss_of_the_recipe_is_here():
    assert set(PREFERENCE_LOSSES) == set(Loss.__args__)


MARGIN = 0.5 * (RATIOS[0] - RATIOS[1])
BY_HAND = [
    (Dpo(0.5), -log_sigmoid(MARGIN)),
    (Dpo(0.5, 0.2), -0.8 * log_sigmoid(MARGIN) - 0.2 * log_sigmoid(-MARGIN)),
    (Hinge(0.5), 1 - MARGIN),
    (Hinge(5.0), 0.0),
    (Ipo(0.5), (RATIOS[0] / 2 - RATIOS[1] - 1.0) ** 2),
    (Robust(0.5, 0.2), (-0.8 * log_sigmoid(MARGIN) + 0.2 * log_sigmoid(-MARGIN)) / 0.6),
    (SigmoidNorm(0.5), -log_sigmoid(0.5 * (RATIOS[0] / 2 - RATIOS[1]))),
]


@pytest.mark.parametrize(("objective", "expected"), BY_HAND)
def test_losses_with_a_reference(objective, expected):
    loss, metrics = value(objective, sequence={"ref_logp": REFERENCE})
    assert loss == pytest.approx(expected, abs=1e-6)
    assert metrics["loss"] == pytest.approx(expected, abs=1e-6)
    assert metrics["rewards/chosen"] == pytest.approx(objective.beta * RATIOS[0])
    assert metrics["rewards/rejected"] == pytest.approx(objective.beta * RATIOS[1])
    assert metrics["rewards/accuracies"] == 1.0


def test_simpo():
    margin = 2.0 * (-0.75 - -2.0) - 0.3
    loss, metrics = value(SimPo(2.0, 0.3))
    assert loss == pytest.approx(-log_sigmoid(margin))
    assert metrics["rewards/margins"] == pytest.approx(2.5) and metrics["logps/chosen"] == -0.75
    assert value(SimPo(2.0))[0] == pytest.approx(-log_sigmoid(2.5 - 0.5)), "TRL's default of simpo_gamma"


def odds(logp):
    return logp - math.log(1 - math.exp(logp))


def test_orpo_weighs_tokens_and_pairs():
    """Two pairs in rows of their own: the NLL is a mean over four chosen tokens, the odds ratio one over two pairs."""
    records = pairs(2, token_share=Orpo.token_share)
    rows = pack_step(records, 4)
    assert len(rows) == 2
    stats = [torch.tensor(CHOSEN + REJECTED), torch.tensor([-0.1, -0.2, -3.0])]
    losses, metrics = [], []
    for row, logp_N in zip(rows, stats, strict=True):
        loss, found = Orpo(0.25).loss(Stats(logp_N=logp_N), row)
        losses.append(loss.item())
        metrics.append(found)
    ratios = [log_sigmoid(odds(-0.75) - odds(-2.0)), log_sigmoid(odds(-0.15) - odds(-3.0))]
    expected = (0.5 + 1.0 + 0.1 + 0.2) / 4 - 0.25 * sum(ratios) / 2
    assert sum(losses) == pytest.approx(expected)
    told = means(metrics)
    assert told["loss"] == pytest.approx(expected)
    assert told["nll_loss"] == pytest.approx(0.45) and told["log_odds_ratio"] == pytest.approx(
        sum(ratios) / 2
    )


def test_log1mexp_is_exact_near_zero_and_far_away():
    from groundup.objective.without_reference import log1mexp

    x = torch.tensor([-1e-6, -0.1, -0.69, -0.7, -3.0, -40.0], dtype=torch.float32, requires_grad=True)
    expected = [math.log(-math.expm1(each)) for each in x.tolist()]
    torch.testing.assert_close(log1mexp(x).detach(), torch.tensor(expected), rtol=1e-5, atol=1e-12)
    log1mexp(x).sum().backward()
    assert bool(x.grad.isfinite().all())


def test_kto():
    chains = [(chain([1, 2, 3, 4], 2),), (chain([1, 2, 5], 2),)]
    records = [
        Record(i, one, {"ref_logp": (REFERENCE[i],)}, {"label": 1.0 - i, "kl": 0.2})
        for i, one in enumerate(chains)
    ]
    (row,) = pack_step(records, 64)
    objective = Kto(0.5, desirable_weight=2.0, undesirable_weight=3.0)
    loss, metrics = objective.loss(Stats(logp_N=torch.tensor(CHOSEN + REJECTED)), row)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    good = 2.0 * (1 - sigmoid(0.5 * (RATIOS[0] - 0.2)))
    bad = 3.0 * (1 - sigmoid(0.5 * (0.2 - RATIOS[1])))
    assert loss.item() == pytest.approx((good + bad) / 2)
    told = means([metrics])
    assert told["kl"] == pytest.approx(0.2)
    assert told["rewards/chosen"] == pytest.approx(0.25) and told["rewards/rejected"] == pytest.approx(-0.5)
    assert told["rewards/margins"] == pytest.approx(0.75), "of two means, for there are no pairs"


@pytest.mark.parametrize(
    ("objective", "columns", "expected"),
    [
        (BradleyTerry(), {}, -log_sigmoid(1.5)),
        (BradleyTerry(), {"group": {"margin": 0.4}}, -log_sigmoid(1.1)),
        (BradleyTerry(0.1), {}, -log_sigmoid(1.5) + 0.1 * 0.25),
    ],
)
def test_bradley_terry(objective, columns, expected):
    chains = tuple(
        Chain(np.array([*side, -1], dtype=np.int32), np.array([*side, -1]) < 0) for side in ([1, 2], [1, 3])
    )
    (row,) = pack_step([Record(0, chains, **columns)], 64)
    loss, metrics = objective.loss(Stats(value_N=torch.tensor([1.0, -0.5])), row)
    assert loss.item() == pytest.approx(expected)
    assert means([metrics]) == pytest.approx(
        {"loss": expected, "accuracy": 1.0, "margin": 1.5, "mean_reward": 0.25}
    )
