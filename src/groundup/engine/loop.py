"""The only training loop. Stages differ by the values handed to it."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from groundup import console
from groundup.batch import Batch
from groundup.config.schema import TrainSettings
from groundup.engine.checkpoint import State, resume, save_checkpoint
from groundup.engine.metrics import MetricLog
from groundup.engine.optimizer import learning_rate_at, make_optimizer
from groundup.engine.phase import Phase, Source, unfinished_phase
from groundup.errors import UserError
from groundup.objective import Metrics, Objective, means, step_total, total
from groundup.store import Stage

MOST_SKIPPED_STEPS = 3
STOPPING = b"\nStopping after this step, to save it. Press ctrl-C again to stop at once.\n"


@dataclass(frozen=True)
class Outcome:
    """What training did, over all its sittings."""

    steps: int
    seconds: float
    tokens: int
    skipped_steps: int


def train(
    model: nn.Module,
    objective: Objective,
    source: Source,
    *,
    total_steps: int,
    epoch_at: Callable[[int], float],
    settings: TrainSettings,
    stage: Stage,
    device: str,
    evaluate: Callable[[], dict[str, float]],
    title: str,
) -> Outcome:
    """Train from the last checkpoint, or from the start, to `total_steps`.

    `source` gives a phase, rows with their weights and the steps that take them, when the last one's steps are done, or
    the checkpoint has it. The loop adds up what rows say and never divides.
    Raises KeyboardInterrupt after saving a checkpoint, and UserError when the gradients stay non-finite.
    """
    optimizer = make_optimizer(model, settings)
    state, phase = resume(stage, model, optimizer), unfinished_phase(stage)
    log = MetricLog(stage, state)
    if state.step == 0:
        log.log(0, **evaluate())
    progress = console.progress(title, total=total_steps, unit="step", start=state.step)
    with progress as bar, polite_interrupt() as stop:
        while state.step < total_steps:
            began = time.perf_counter()
            if phase is None or state.step == phase.end_step:
                phase = begin_phase(source, state)
                bar.show(**shown(objective, phase.metrics))
            rows = [row.to(device) for row in phase.rows_of(state.step)]
            loading = time.perf_counter() - began
            rate = learning_rate_at(state.step, total_steps, settings)
            metrics = step_total(backward(model, objective, row) for row in rows)
            grad_norm = update(model, optimizer, rate, settings.max_grad_norm)
            tokens, seconds = sum(row.sequence_tokens for row in rows), time.perf_counter() - began
            if not math.isfinite(grad_norm):
                count_skipped(state, stage, total_steps)
            else:
                state.window = total([state.window, metrics, of_step(grad_norm, tokens, loading, seconds)])
            state.advance(tokens, seconds)
            bar.advance(1, **shown(objective, metrics))
            if state.step % settings.logging_steps == 0 or state.step == total_steps:
                log_window(log, state, epoch=epoch_at(state.step), learning_rate=rate)
            if settings.eval_steps and state.step % settings.eval_steps == 0 and state.step < total_steps:
                log.log(state.step, **evaluate())
            if state.step % settings.save_steps == 0 or state.step == total_steps or stop.is_set():
                state.logged_lines = log.lines
                write = partial(save_checkpoint, model=model, optimizer=optimizer, state=state, phase=phase)
                stage.publish_checkpoint(state.step, write, keep=settings.save_total_limit)
            if stop.is_set():
                log.close()
                console.say(f"Stopped after step {state.step}, which is saved.")
                raise KeyboardInterrupt
    after = evaluate()
    log.log(total_steps, **after)
    log.close()
    check_finite(after, stage)
    return Outcome(state.step, state.seconds, state.tokens, state.skipped_steps)


def begin_phase(source: Source, state: State) -> Phase:
    """The phase that begins now; what it measured joins the metrics of the steps."""
    phase = source.phase(state.step, state.carry)
    state.carry = dict(phase.carry)
    state.window = total([state.window, phase.metrics])
    return phase


def log_window(log: MetricLog, state: State, **values: float) -> None:
    """The means since the last line, and what stands beside them."""
    so_far = {"num_tokens": state.tokens, "elapsed_seconds": state.seconds}
    log.log(state.step, **values, **means([state.window]), **so_far)
    state.window = {}


def backward(model: nn.Module, objective: Objective, row: Batch) -> Metrics:
    """Add one row's gradients: one forward and backward, or one for each set of statistics where these stand apart."""
    collected = []
    for needs in objective.passes:
        stats = model(row, needs, objective.logp_gradient(row))
        loss, metrics = objective.loss(stats, row)
        loss.backward()
        collected.append(metrics)
    return total(collected)


def shown(objective: Objective, metrics: Metrics) -> dict[str, str]:
    """The chosen few that people see while it runs, each as wide as ever; the log has them all."""
    values = means([metrics])
    return {label: f"{values[name]:.3f}" for name, label in objective.shown.items() if name in values}


def update(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, max_grad_norm: float) -> float:
    """Clip and step; the gradient's norm before clipping. A non-finite gradient changes nothing."""
    grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm))
    if math.isfinite(grad_norm):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return grad_norm


def of_step(grad_norm: float, tokens: int, loading: float, seconds: float) -> Metrics:
    """What is logged of a step besides its objective's metrics. loading: seconds that its rows took."""
    return {
        "grad_norm": (grad_norm, 1.0),
        "tokens_per_second": (float(tokens), seconds),
        "loading_share": (loading, seconds),
    }


def count_skipped(state: State, stage: Stage, total_steps: int) -> None:
    """A step that is not in the logged means either; ends a run whose numbers are broken, or that trained nothing."""
    state.skipped_steps += 1
    console.warn(f"step {state.step + 1}: the gradient is not finite; the step is skipped")
    if state.skipped_steps > MOST_SKIPPED_STEPS or state.skipped_steps == total_steps:
        raise UserError(
            f"{state.skipped_steps} of {total_steps} steps had a gradient that is not finite",
            where=str(stage.metrics),
            why="the learning rate is too high for this model, or its weights hold NaN",
            fix="lower learning_rate, or set dtype: float32",
        )


def check_finite(metrics: dict[str, float], stage: Stage) -> None:
    """A model that says NaN about held-out rows is no result, however few steps were skipped."""
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"after training, {broken[0]} is not a finite number: training broke the model",
            where=str(stage.metrics),
            why="the learning rate is too high for this model",
            fix="lower learning_rate; earlier lines of that file show where it broke",
        )


@contextmanager
def polite_interrupt() -> Iterator[threading.Event]:
    """The first ctrl-C sets the event, so that the step ends and is saved; the second interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def on_signal(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        os.write(2, STOPPING)  # not by print: the signal may have come in the middle of one

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
