"""Learning rates by hand, and which weights decay."""

import pytest
import torch

from groundup.config.schema import TrainSettings
from groundup.engine.optimizer import learning_rate_at, make_optimizer


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        # Ten steps, two of them warm-up: thirds of the rate, then what is left of the schedule's eight steps.
        ("constant", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 6: 1.0, 9: 1.0}),
        ("linear", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 6: 0.5, 9: 1 / 8}),
        ("cosine", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 4: 0.8535533905932737, 6: 0.5, 8: 0.1464466094067262}),
    ],
)
def test_schedules(scheduler, expected):
    settings = TrainSettings(learning_rate=0.3, lr_scheduler_type=scheduler, warmup_ratio=0.2)
    for step, share in expected.items():
        assert learning_rate_at(step, 10, settings) == pytest.approx(0.3 * share)


@pytest.mark.parametrize("scheduler", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(
    ("warmup_ratio", "total_steps"), [(0.0, 1), (0.0, 5), (0.03, 1), (0.9, 3), (0.03, 1000)]
)
def test_every_step_trains(scheduler, warmup_ratio, total_steps):
    settings = TrainSettings(learning_rate=0.3, lr_scheduler_type=scheduler, warmup_ratio=warmup_ratio)
    rates = [learning_rate_at(step, total_steps, settings) for step in range(total_steps)]
    assert min(rates) > 0 and max(rates) <= 0.3
    assert warmup_ratio or rates[0] == 0.3


def test_vectors_do_not_decay_and_frozen_weights_are_left_out(toy):
    model = toy.Bigrams()
    optimizer = make_optimizer(model, toy.settings(weight_decay=0.2, adam_beta1=0.8, adam_beta2=0.9))
    decaying, sparing = optimizer.param_groups
    assert [p is model.weight for p in decaying["params"]] == [True] and decaying["weight_decay"] == 0.2
    assert [p is model.bias for p in sparing["params"]] == [True] and sparing["weight_decay"] == 0.0
    assert decaying["betas"] == sparing["betas"] == (0.8, 0.9)


def test_an_adapter_has_matrices_only(toy):
    model = toy.Bigrams()
    model.bias.requires_grad_(False)
    (group,) = make_optimizer(model, toy.settings()).param_groups
    assert len(group["params"]) == 1


def test_trained_weights_have_to_be_float32(toy):
    with pytest.raises(AssertionError):
        make_optimizer(toy.Bigrams().to(torch.bfloat16), toy.settings())


def test_one_step_is_adamws(toy):
    """Decay by rate times weight_decay, then the rate against the gradient's sign: Adam's first step."""
    model = toy.Bigrams()
    before = {"weight": model.weight.detach().clone(), "bias": model.bias.detach().clone()}
    optimizer = make_optimizer(model, toy.settings(weight_decay=0.5, learning_rate=0.1))
    model.weight.grad, model.bias.grad = torch.full((7, 7), 3.0), torch.full((7,), -2.0)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 0.05) - 0.1)
    torch.testing.assert_close(model.bias.detach(), before["bias"] + 0.1)
