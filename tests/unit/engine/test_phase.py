"""Phases in the loop: several steps on the same rows, and a run that goes on in the middle of one."""

import signal
from dataclasses import replace

import pytest
import torch

from groundup.engine import Offline, Phase
from groundup.engine.phase import PHASE, unfinished_phase
from groundup.store.files import read_jsonl

STEPS = 4


class Online:
    """Phases of two rows and four steps, made by the weights as they stand."""

    def __init__(self, toy, model, interrupt_at=None):
        self.toy, self.model, self.interrupt_at = toy, model, interrupt_at
        self.made = []

    def phase(self, step, carry):
        self.made.append(step)
        number = carry.get("number", 0.0)
        rows = tuple(
            replace(row, weight_N=row.weight_N * (1.0 + self.model.bias.detach().abs().sum()))
            for row in self.toy.rows(step)
        )
        steps = ((0,), (1,), (0, 1), (1,))
        return Phase(step, rows, steps, {"reward": (number, 1.0)}, {"number": number + 1})


class Interrupting:
    """The same rows, and a ctrl-C while a step is under way."""

    def __init__(self, source, at):
        self.source, self.at = source, at

    def phase(self, step, carry):
        phase = self.source.phase(step, carry)
        return Watched(**vars(phase)).until(self.at)


class Watched(Phase):
    def until(self, step):
        object.__setattr__(self, "stop", step)
        return self

    def rows_of(self, step):
        if step == self.stop:
            signal.raise_signal(signal.SIGINT)
        return super().rows_of(step)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def timeless(stage):
    times = ("elapsed_seconds", "tokens_per_second", "loading_share")
    return [{k: v for k, v in line.items() if k not in times} for line in read_jsonl(stage.metrics)]


def test_a_phase_is_made_when_the_steps_of_the_last_are_done(toy):
    model = toy.Bigrams()
    source = Online(toy, model)
    toy.fit(model, source=source, total_steps=10, logging_steps=1)
    assert source.made == [0, 4, 8]
    rewards = {line["step"]: line["reward"] for line in read_jsonl(toy.stage.metrics) if "reward" in line}
    assert rewards == {1: 0.0, 5: 1.0, 9: 2.0}, "what a phase measured is told with its first step, once"


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_run_that_goes_on_in_the_middle_of_a_phase_is_the_one_that_never_stopped(toy, other_toy, at):
    whole = toy.Bigrams()
    toy.fit(whole, source=Online(toy, whole), total_steps=12)

    model = toy.Bigrams()
    with pytest.raises(KeyboardInterrupt):
        other_toy.fit(model, source=Interrupting(Online(toy, model), at), total_steps=12)
    inside = (at + 1) % STEPS != 0
    assert (other_toy.stage.checkpoints()[-1] / PHASE).exists() == inside
    assert (unfinished_phase(other_toy.stage) is not None) == inside

    model = toy.Bigrams()
    source = Online(toy, model)
    other_toy.fit(model, source=source, total_steps=12)
    assert source.made == [step for step in (0, 4, 8) if step > at]
    mine, theirs = weights(model), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert timeless(other_toy.stage) == timeless(toy.stage)


def test_offline_rows_are_phases_of_one_step(toy):
    phase = Offline(toy.rows).phase(3, {})
    assert phase.end_step == 4 and len(phase.rows_of(3)) == 2 and not phase.carry
