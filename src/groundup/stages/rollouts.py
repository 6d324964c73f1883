"""What a plan must know of a policy's training, and the answers that are written down on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from groundup.batch import Batch, Stream
from groundup.config.schema import TrainSettings
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import make_optimizer
from groundup.machine.plan import Plan
from groundup.rollout.source import Collected, Rollouts
from groundup.stages.context import Context
from groundup.store.files import append_jsonl, read_jsonl, write_text

SHOWN_MOMENTS = 3
SHOWN_PROMPTS = 4


@dataclass(frozen=True)
class RolloutWork:
    """A policy's training as a plan sees it: how long answers will be nobody knows, so they count as the longest."""

    rollouts: Rollouts

    @property
    def layout(self) -> str:
        return self.rollouts.shape.layout

    @property
    def sizes(self) -> Sequence[Any]:
        return self.rollouts.questions

    @property
    def chain_tokens(self) -> int:
        prompt = max(len(question.token) for question in self.rollouts.questions)
        return prompt + self.rollouts.decoding.max_completion_length

    @property
    def longest_tokens(self) -> int:
        """A group may be split over rows, so one answer must fit."""
        return self.chain_tokens

    def largest_step_tokens(self) -> int:
        shape = self.rollouts.shape
        answers = shape.samples * self.rollouts.decoding.max_completion_length
        prompt = self.chain_tokens - self.rollouts.decoding.max_completion_length
        copies = 1 if shape.layout == "shared" else shape.samples
        return shape.prompts * (prompt * copies + answers)

    def steps_for(self, epochs: float) -> int:
        return self._stream.steps_for(epochs) * self.rollouts.shape.steps

    def epoch_at(self, step: int) -> float:
        """Passes over the prompts after `step` steps: a phase counts when it begins."""
        return self._stream.epoch_at(-(-step // self.rollouts.shape.steps))

    @property
    def _stream(self) -> Stream:
        ones = np.ones(len(self.rollouts.questions), dtype=np.int64)
        return Stream(ones, self.rollouts.shape.phase_prompts, self.rollouts.shape.seed)

    def planned(self, plan: Plan) -> Rollouts:
        """The rollouts with rows as long as the plan says."""
        return replace(self.rollouts, shape=replace(self.rollouts.shape, row_tokens=plan.row_tokens))

    def seconds_a_step(self, model: nn.Module, plan: Plan, settings: TrainSettings) -> float:
        """One whole phase, answers and all, with a learning rate of zero."""
        quiet = replace(self.planned(plan), on_phase=lambda step, found, rows: None)
        optimizer = make_optimizer(model, settings)
        began = time.perf_counter()
        phase = quiet.phase(0, {})
        for step in range(phase.end_step):
            for row in phase.rows_of(step):
                backward(model, quiet.objective, row.to(plan.device))
            update(model, optimizer, 0.0, settings.max_grad_norm)
        return (time.perf_counter() - began) / phase.end_step


@dataclass(frozen=True)
class CompletionLog:
    """`completions.jsonl`: TRL's table of sampled answers with their rewards and advantages, a line an answer."""

    context: Context

    def write(self, step: int, found: Collected, rows: Sequence[Batch]) -> None:
        """A few answers of the phase that begins with `step`; what a stopped run wrote of later ones goes."""
        settings, path = self.context.settings, self.context.stage.completions
        every = settings.log_completions_steps
        due = every and (step % every == 0 or step // every != (step - settings.steps_per_phase) // every)
        if not due:
            return
        lines = read_jsonl(path)
        kept = [line for line in lines if line["step"] < step]
        if len(kept) < len(lines):
            write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        for line in self._lines(step, found, rows):
            append_jsonl(path, line)

    def _lines(self, step: int, found: Collected, rows: Sequence[Batch]) -> list[dict[str, Any]]:
        samples = found.reward_PG.shape[1]
        reward, advantage = found.reward_PG.flatten().tolist(), _advantages(rows)
        return [
            {
                "step": step,
                "prompt": found.questions[place // samples].task.text,
                "completion": found.answers[place].text,
                "reward": reward[place],
                "rewards": {name: float(each.flatten()[place]) for name, each in found.each.items()},
                "advantage": advantage[place],
                "finished": found.answers[place].finished,
            }
            for place in range(min(self.context.settings.num_completions_to_log, len(found.answers)))
        ]

    def shown(self) -> list[dict[str, Any]]:
        """For the report: of the first, a middle and the last time, the first answers."""
        lines = read_jsonl(self.context.stage.completions)
        steps = sorted({line["step"] for line in lines})
        if len(steps) > SHOWN_MOMENTS:
            steps = [steps[0], steps[len(steps) // 2], steps[-1]]
        return [
            line
            for step in steps
            for line in [line for line in lines if line["step"] == step][:SHOWN_PROMPTS]
        ]


def _advantages(rows: Sequence[Batch]) -> dict[int, float]:
    """Of each answer; its tokens' mean where each token has its own."""
    found: dict[int, float] = {}
    for row in rows:
        places = row.sequence["place"].long().tolist()
        if "advantage" in row.sequence:
            found |= dict(zip(places, row.sequence["advantage"].tolist(), strict=True))
        else:
            parts = row.token["advantage"].split(row.reads_Q.tolist())
            found |= {place: float(part.mean()) for place, part in zip(places, parts, strict=True)}
    return found
