"""The loop on a toy: what it logs, what it saves, how it stops, goes on and gives up."""

import math
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from groundup.batch import Chain, Record, pack_step
from groundup.errors import UserError
from groundup.objective import Dpo
from groundup.store.files import read_jsonl

STILL = 1e-30
"""A learning rate that moves nothing."""
TIMES = ("elapsed_seconds", "tokens_per_second", "loading_share")


def timeless(stage):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_jsonl(stage.metrics)]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(one, other):
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def nll(model, records):
    """(summed negative log-likelihood, tokens) by the definition."""
    table = (model.weight + model.bias).log_softmax(-1)
    pairs = [(a, b) for record in records for a, b in zip(record.chains[0].token, record.chains[0].token[1:])]
    return -sum(float(table[int(a), int(b)].detach()) for a, b in pairs), len(pairs)


def breaking(toy, *steps, factor=math.nan):
    """Rows of which one has a weight that is not finite."""

    def rows(step):
        first, second = toy.rows(step)
        return [first, replace(second, weight_N=second.weight_N * (factor if step in steps else 1.0))]

    return rows


def interrupting(toy, at, times=1):
    """Rows that bring a ctrl-C while step number `at` is under way."""

    def rows(step):
        for _ in range(times if step == at else 0):
            signal.raise_signal(signal.SIGINT)
        return toy.rows(step)

    return rows


def test_a_logged_loss_is_the_mean_over_the_windows_tokens(toy):
    model = toy.Bigrams()
    outcome = toy.fit(model, learning_rate=STILL, total_steps=3, evaluate=lambda: {"eval_loss": 1.5})
    start, window, last, end = read_jsonl(toy.stage.metrics)
    assert start == {"step": 0, "eval_loss": 1.5} and end == {"step": 3, "eval_loss": 1.5}
    total, tokens = nll(model, [toy.record(i) for i in (0, 1, 2, 3)])
    assert window["loss"] == pytest.approx(total / tokens) and tokens == 18
    assert (window["step"], window["epoch"], last["step"]) == (2, 4 / 5, 3)
    total, tokens = nll(model, [toy.record(i) for i in (4, 0)])
    assert last["loss"] == pytest.approx(total / tokens)
    assert outcome.steps == 3 and outcome.tokens == sum(
        len(toy.record(i).chains[0].token) for i in (0, 1, 2, 3, 4, 0)
    )
    assert set(window) == {"step", "epoch", "learning_rate", "loss", "grad_norm", "num_tokens", *TIMES}
    assert last["num_tokens"] == outcome.tokens > window["num_tokens"] > 0


def test_a_steps_gradient_is_the_mean_over_its_tokens_whatever_its_rows(toy):
    model = toy.Bigrams()
    outcome = toy.fit(model, learning_rate=STILL, total_steps=1, max_grad_norm=1e9)
    (line,) = [line for line in read_jsonl(toy.stage.metrics) if "loss" in line]
    alone = toy.Bigrams()
    tokens = [torch.from_numpy(toy.record(i).chains[0].token).long() for i in (0, 1)]
    table = (alone.weight + alone.bias).log_softmax(-1)
    losses = torch.cat([-table[token[:-1], token[1:]] for token in tokens])
    losses.mean().backward()
    norm = math.hypot(float(alone.weight.grad.norm()), float(alone.bias.grad.norm()))
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5) and outcome.skipped_steps == 0


def test_gradients_are_clipped_to_max_grad_norm_and_logged_as_they_were(toy, other_toy):
    """SGD-like proof with Adam: its second moment after one step is (1 - beta2) times the squared gradient."""
    model = toy.Bigrams()
    toy.fit(model, total_steps=1, max_grad_norm=0.01, save_steps=1)
    moments = load_file(toy.stage.checkpoints()[-1] / "optimizer.safetensors")
    squares = sum(float(v.sum()) for name, v in moments.items() if name.endswith("exp_avg_sq")) / (1 - 0.999)
    assert math.sqrt(squares) == pytest.approx(0.01, rel=1e-3)
    assert read_jsonl(toy.stage.metrics)[1]["grad_norm"] > 0.1


def test_preference_curves_have_trls_names(toy):
    def rows(step):
        chains = [
            Chain(np.array(token, dtype=np.int32), np.arange(4) > 1) for token in ([1, 2, 3, 4], [1, 2, 5, 6])
        ]
        return pack_step([Record(0, tuple(chains), {"ref_logp": (-1.0, -2.0)})], 64)

    toy.fit(toy.Bigrams(), rows=rows, objective=Dpo(0.1), total_steps=4, evaluate=lambda: {"eval_loss": 0.5})
    names = {
        *("loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/margins"),
        *("rewards/accuracies", "logps/chosen", "logps/rejected"),
    }
    assert all(names <= line.keys() for line in read_jsonl(toy.stage.metrics) if "loss" in line)
    events = EventAccumulator(str(toy.stage.tensorboard)).Reload()
    assert set(events.Tags()["scalars"]) == names | {
        *("eval_loss", "num_tokens", "tokens_per_second", "loading_share")
    }
    assert [event.step for event in events.Scalars("rewards/margins")] == [2, 4]
    assert [event.step for event in events.Scalars("eval_loss")] == [0, 4]
    logged = [line["loss"] for line in read_jsonl(toy.stage.metrics) if "loss" in line]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_evaluation_comes_before_after_and_every_eval_steps(toy):
    toy.fit(toy.Bigrams(), evaluate=lambda: {"eval_loss": 1.0}, eval_steps=5)
    assert [line["step"] for line in read_jsonl(toy.stage.metrics) if "eval_loss" in line] == [0, 5, 10]


def test_only_the_newest_checkpoints_stay_and_the_last_step_is_one(toy):
    toy.fit(toy.Bigrams(), save_steps=2, save_total_limit=3, total_steps=9)
    assert [path.name for path in toy.stage.checkpoints()] == [f"checkpoint-{n:06d}" for n in (6, 8, 9)]


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_count(toy, other_toy, factor, capfd):
    """Step 1 is skipped: the weights and moments go on as if it had never been."""
    model, other = toy.Bigrams(), other_toy.Bigrams()
    options = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    outcome = toy.fit(model, rows=breaking(toy, 1, factor=factor), total_steps=3, **options)
    assert outcome.skipped_steps == 1 and outcome.steps == 3
    assert "step 2: the gradient is not finite" in capfd.readouterr().err
    other_toy.fit(other, rows=lambda step: toy.rows((0, 2)[step]), total_steps=2, **options)
    assert_equal(weights(model), weights(other))
    lines = [line for line in read_jsonl(toy.stage.metrics) if "epoch" in line]
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]) for line in lines)


def test_a_window_of_skipped_steps_has_no_loss(toy):
    toy.fit(toy.Bigrams(), rows=breaking(toy, 0, 1), total_steps=4)
    first, second = (line for line in read_jsonl(toy.stage.metrics) if "epoch" in line)
    assert "loss" not in first and "grad_norm" not in first and first["step"] == 2
    assert second["loss"] > 0


def test_broken_numbers_end_the_run_with_advice(toy):
    with pytest.raises(UserError, match="4 of 10 steps had a gradient that is not finite") as caught:
        toy.fit(toy.Bigrams(), rows=breaking(toy, *range(2, 10)))
    assert "learning_rate" in caught.value.fix and str(toy.stage.metrics) in caught.value.where


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_run_of_skipped_steps_is_no_success(toy, steps):
    """Few enough to be forgiven, were they not all that there are."""
    with pytest.raises(UserError, match=f"{steps} of {steps} steps"):
        toy.fit(toy.Bigrams(), rows=breaking(toy, *range(steps)), total_steps=steps)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_model_that_ends_in_nan_is_no_success(toy, broken):
    """Evaluated once more when the same run is asked to go on, and refused again."""
    values = iter([1.0, broken, broken])
    for _ in range(2):
        with pytest.raises(UserError, match="eval_loss is not a finite number"):
            toy.fit(toy.Bigrams(), evaluate=lambda: {"eval_loss": next(values)}, total_steps=2)
    assert [line["step"] for line in read_jsonl(toy.stage.metrics) if "eval_loss" in line] == [0, 2]


@pytest.mark.parametrize("at", [0, 2, 3, 6, 9])
def test_stopped_with_ctrl_c_and_resumed_is_as_if_never_stopped(toy, other_toy, at):
    """Wherever it stops, also between two logged lines: weights, metrics and counts are equal to the last bit."""
    whole, cut = other_toy.Bigrams(), toy.Bigrams()

    def evaluate(model):
        return lambda: {"eval_loss": nll(model, [toy.record(7)])[0]}

    options = {"eval_steps": 3, "logging_steps": 4}
    expected = other_toy.fit(whole, evaluate=evaluate(whole), **options)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(cut, rows=interrupting(toy, at), evaluate=evaluate(cut), **options)
    assert toy.stage.checkpoints()[-1].name == f"checkpoint-{at + 1:06d}"
    again = toy.Bigrams()
    found = toy.fit(again, evaluate=evaluate(again), **options)
    assert_equal(weights(whole), weights(again))
    assert timeless(toy.stage) == timeless(other_toy.stage)
    assert (found.steps, found.tokens) == (expected.steps, expected.tokens)


def test_a_second_ctrl_c_stops_at_once(toy):
    with pytest.raises(KeyboardInterrupt):
        toy.fit(toy.Bigrams(), rows=interrupting(toy, 5, times=2), save_steps=4)
    assert [path.name for path in toy.stage.checkpoints()] == ["checkpoint-000004"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_logged_beyond_the_checkpoint_is_taken_back(toy, other_toy):
    """Killed at step 7 with a checkpoint of step 4: the lines of step 6 come again, once."""

    def killed(step):
        if step == 7:
            raise SystemExit
        return toy.rows(step)

    with pytest.raises(SystemExit):
        toy.fit(toy.Bigrams(), rows=killed)
    assert [line["step"] for line in timeless(toy.stage)] == [0, 2, 4, 6]
    toy.fit(toy.Bigrams())
    other_toy.fit(other_toy.Bigrams())
    assert timeless(toy.stage) == timeless(other_toy.stage)


def test_killed_in_the_last_evaluation_it_only_evaluates_again(toy):
    calls = []

    def evaluate():
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        return {"eval_loss": float(len(calls))}

    def no_rows(step):
        raise AssertionError("it is trained already")

    with pytest.raises(SystemExit):
        toy.fit(toy.Bigrams(), evaluate=evaluate)
    for _ in range(2):  # and once more, as if killed between the evaluation and the manifest
        outcome = toy.fit(toy.Bigrams(), rows=no_rows, evaluate=evaluate)
    assert outcome.steps == 10
    assert [line for line in timeless(toy.stage) if "eval_loss" in line] == [
        {"step": 0, "eval_loss": 1.0},
        {"step": 10, "eval_loss": 4.0},
    ]


def test_outside_the_main_thread_it_trains_without_ctrl_c(toy):
    """Signals belong to the main thread; a notebook or a server trains in another."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(toy.fit(toy.Bigrams(), total_steps=2)))
    thread.start()
    thread.join()
    assert outcomes[0].steps == 2
