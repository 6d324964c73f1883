"""A checkpoint brings everything back, and never another model's."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from groundup.engine.checkpoint import State, load_checkpoint, save_checkpoint
from groundup.engine.optimizer import make_optimizer
from groundup.errors import UserError


def stepped(toy, steps=2):
    """A model and its optimizer after some steps on made-up gradients."""
    model = toy.Bigrams()
    optimizer = make_optimizer(model, toy.settings())
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for p in (model.weight, model.bias):
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return model, optimizer


def test_weights_moments_and_state_come_back_bit_by_bit(toy, tmp_path):
    model, optimizer = stepped(toy)
    state = State(7, 123, 0.1 + 0.2, 1, 4, {"loss": (1 / 3, 5.0)})
    save_checkpoint(tmp_path, model, optimizer, state)
    fresh = toy.Bigrams()
    loaded = make_optimizer(fresh, toy.settings())
    found = load_checkpoint(tmp_path, fresh, loaded)
    assert (found.step, found.tokens, found.seconds, found.skipped_steps, found.logged_lines) == (
        7,
        123,
        0.1 + 0.2,
        1,
        4,
    )
    assert tuple(found.window["loss"]) == (1 / 3, 5.0)
    for name in ("weight", "bias"):
        mine, theirs = getattr(fresh, name), getattr(model, name)
        assert torch.equal(mine, theirs)
        assert (
            loaded.state[mine].keys() == optimizer.state[theirs].keys() == {"step", "exp_avg", "exp_avg_sq"}
        )
        assert all(
            torch.equal(value, optimizer.state[theirs][key]) for key, value in loaded.state[mine].items()
        )
    for one, other in ((fresh, loaded), (model, optimizer)):
        for p in (one.weight, one.bias):
            p.grad = torch.ones_like(p)
        other.step()
    assert torch.equal(fresh.weight, model.weight) and torch.equal(fresh.bias, model.bias)


def test_only_what_is_trained_is_saved(toy, tmp_path):
    model, optimizer = stepped(toy)
    save_checkpoint(tmp_path, model, optimizer, State())
    fresh = toy.Bigrams()
    with torch.no_grad():
        fresh.frozen.fill_(5.0)
    load_checkpoint(tmp_path, fresh, make_optimizer(fresh, toy.settings()))
    assert (fresh.frozen == 5.0).all()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "optimizer.safetensors",
        "state.json",
        "trained.safetensors",
    ]


def test_before_the_first_step_there_are_no_moments(toy, tmp_path):
    """A first step that was skipped is saved too."""
    model, optimizer = stepped(toy, steps=0)
    save_checkpoint(tmp_path, model, optimizer, State(step=1))
    fresh = toy.Bigrams()
    loaded = make_optimizer(fresh, toy.settings())
    assert load_checkpoint(tmp_path, fresh, loaded).step == 1
    fresh.weight.grad = torch.ones(7, 7)
    loaded.step()


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(3, 3))


@pytest.mark.parametrize("kind", ["other names", "other sizes", "a size that would broadcast"])
def test_another_models_checkpoint_is_refused(toy, tmp_path, kind):
    model, optimizer = stepped(toy)
    save_checkpoint(tmp_path, model, optimizer, State())
    other = {
        "other names": Other,
        "other sizes": lambda: toy.Bigrams(9),
        "a size that would broadcast": lambda: with_rows(toy.Bigrams()),
    }[kind]()
    before = [p.detach().clone() for p in other.parameters()]
    with pytest.raises(UserError, match="does not fit the model") as caught:
        load_checkpoint(tmp_path, other, make_optimizer(other, toy.settings()))
    assert str(tmp_path) in caught.value.where and caught.value.fix
    assert all(torch.equal(p, old) for p, old in zip(other.parameters(), before))


def with_rows(model):
    """The vector becomes a matrix of equal rows' shape, to which the saved vector would spread silently."""
    model.bias = nn.Parameter(torch.zeros(2, 7))
    return model


def assert_refused_and_untouched(toy, folder, match):
    fresh = toy.Bigrams()
    optimizer = make_optimizer(fresh, toy.settings())
    before = [p.detach().clone() for p in fresh.parameters()]
    with pytest.raises(UserError, match=match) as caught:
        load_checkpoint(folder, fresh, optimizer)
    assert str(folder) in caught.value.where and "remove this checkpoint" in caught.value.fix
    assert all(torch.equal(p, old) for p, old in zip(fresh.parameters(), before)) and not optimizer.state


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("file", "name"),
    [("trained.safetensors", "weight"), ("optimizer.safetensors", "bias/exp_avg_sq")],
)
def test_numbers_that_are_not_finite_are_refused(toy, tmp_path, file, name, broken):
    """Else every further step would be skipped, and the run end with advice about the learning rate."""
    save_checkpoint(tmp_path, *stepped(toy), State(step=2))
    tensors = load_file(tmp_path / file)
    tensors[name].view(-1)[3] = broken
    save_file(tensors, tmp_path / file)
    assert_refused_and_untouched(toy, tmp_path, f"not finite, in {name}")


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_files_that_cannot_be_read_are_refused(toy, tmp_path, file, damage):
    save_checkpoint(tmp_path, *stepped(toy), State(step=2))
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if damage == "cut short":
        (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    assert_refused_and_untouched(toy, tmp_path, "cannot be read")
