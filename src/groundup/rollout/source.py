"""Phases of a policy's training: prompts answered and scored, packed once, with all columns that are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from groundup import console
from groundup.batch import Batch, Chain, Record, Stream, pack_step, segment_tokens
from groundup.engine.phase import Phase, with_columns
from groundup.model import LanguageModel, PolicyValue
from groundup.objective import Answered, Metrics, PolicyObjective, total
from groundup.objective.advantage import without_spread
from groundup.objective.policy import logp_difference
from groundup.rollout.answers import (
    Answer,
    Decoding,
    Question,
    draw_answers,
    score_answers,
    seed_of,
)
from groundup.rollout.measure import of_answers, of_rewards
from groundup.rollout.reference import Reference
from groundup.rollout.rewards import Rewards
from groundup.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shape:
    """How a phase is cut: its answers are split into parts of so many prompts, an epoch takes each part once."""

    prompts: int
    """Of a part: an optimizer step's, or a minibatch's."""
    parts: int
    epochs: int
    samples: int
    """Answers to each prompt."""
    row_tokens: int
    layout: str
    device: str
    seed: int
    resamples: int = 0
    """How often groups that teach nothing are replaced by other prompts' (DAPO's dynamic sampling)."""

    @property
    def steps(self) -> int:
        return self.parts * self.epochs

    @property
    def phase_prompts(self) -> int:
        return self.prompts * self.parts


@dataclass(frozen=True)
class Collected:
    """Answers of one phase, a prompt's adjacent, and what they got."""

    questions: list[Question]
    answers: list[Answer]
    reward_PG: Tensor
    each: dict[str, Tensor]
    metrics: Metrics


@dataclass(frozen=True)
class Rollouts:
    """A `Source` of phases. Each is a function of its number, the seed and the weights as they stand."""

    policy: LanguageModel
    model: LanguageModel | PolicyValue
    """What is trained: the policy, or the policy and its value function."""
    objective: PolicyObjective
    tokenizer: Tokenizer
    questions: Sequence[Question]
    rewards: Rewards
    decoding: Decoding
    shape: Shape
    columns: tuple[Mapping[str, str], ...]
    """Columns that the objective wants beforehand, by what fills them: a pass over the rows each."""
    reference: Reference | None = None
    on_phase: Callable[[int, Collected, Sequence[Batch]], object] = lambda step, found, rows: None

    def phase(self, step: int, carry: Mapping[str, float]) -> Phase:
        """Answer, score, pack, fill and prepare."""
        number, inside = divmod(step, self.shape.steps)
        assert inside == 0, "a phase begins with its first step"
        found = self._collect(number)
        rows, parts = self._rows(found)
        rows, differences = self._filled(rows)
        prepared = self.objective.prepare(Answered(rows, parts, found.reward_PG, carry))
        self.on_phase(step, found, prepared.rows)
        metrics = total([found.metrics, differences, prepared.metrics])
        return Phase(step, tuple(prepared.rows), self._steps(number, parts), metrics, prepared.carry)

    def _collect(self, number: int) -> Collected:
        """The phase's groups. With resampling, those with a spread come first, in the order in which they came."""
        wanted, samples = self.shape.phase_prompts, self.shape.samples
        gathered: list[tuple[Question, list[Answer], Tensor, dict[str, Tensor], bool]] = []
        metrics: Metrics = {}
        for attempt in range(self.shape.resamples + 1):
            questions = [self.questions[index] for index in self._prompts(number, attempt)]
            answers = self._answers(questions, number, attempt)
            judged = score_answers(self.rewards, questions, answers)
            if attempt == 0:
                metrics = total([of_answers(answers), of_rewards(judged)])
            flat_P = without_spread(judged.total_PG)
            for p, question in enumerate(questions):
                group = answers[p * samples : (p + 1) * samples]
                scores = {name: reward_PG[p] for name, reward_PG in judged.each.items()}
                gathered.append((question, group, judged.total_PG[p], scores, bool(flat_P[p])))
            if sum(not flat for *_, flat in gathered) >= wanted:
                break
        if self.shape.resamples:
            gathered.sort(key=lambda group: group[-1])
            metrics["resampled_ratio"] = (float(len(gathered) - wanted), float(wanted))
        kept = gathered[:wanted]
        return Collected(
            [question for question, *_ in kept],
            [answer for _, group, *_ in kept for answer in group],
            torch.stack([reward for _, _, reward, *_ in kept]),
            {name: torch.stack([scores[name] for *_, scores, _ in kept]) for name in kept[0][3]},
            metrics,
        )

    def _prompts(self, number: int, attempt: int) -> list[int]:
        """Which prompts are answered; those that stand in for others come in an order of their own."""
        seed = self.shape.seed if attempt == 0 else seed_of(self.shape.seed, "resample", attempt)
        order = Stream(np.ones(len(self.questions), dtype=np.int64), self.shape.phase_prompts, seed)
        return [int(index) for index in order.records_of(number)]

    def _answers(self, questions: Sequence[Question], number: int, attempt: int) -> list[Answer]:
        seed = seed_of(self.shape.seed, "rollout", number, attempt)
        return draw_answers(self.policy, self.tokenizer, questions, self.shape.samples, self.decoding, seed)

    def _rows(self, found: Collected) -> tuple[list[Batch], list[list[int]]]:
        """Rows of every part, and which belong to which part. A group too large for a row is split."""
        rows: list[Batch] = []
        parts: list[list[int]] = []
        for part in range(self.shape.parts):
            records: list[Record] = []
            for p in range(part * self.shape.prompts, (part + 1) * self.shape.prompts):
                first = p * self.shape.samples
                group = found.answers[first : first + self.shape.samples]
                records += split_group(
                    record_of(found.questions[p], group, first), self.shape.row_tokens, self.shape.layout
                )
            packed = pack_step(records, self.shape.row_tokens, self.shape.layout)
            parts.append(list(range(len(rows), len(rows) + len(packed))))
            if self.decoding.temperature == 1.0:  # the generator's are at temperature 1
                packed = [with_drawn_logps(row, found.answers) for row in packed]
            rows += packed
        return rows, parts

    def _filled(self, rows: list[Batch]) -> tuple[list[Batch], Metrics]:
        """The columns that are computed without gradient, on these very rows."""
        device = self.shape.device
        passes = len(self.columns) + (self.reference is not None)
        with console.progress("Reading answers", len(rows) * passes, "row", brief=True) as bar:

            def on_row(row: object) -> None:
                bar.advance()

            for names in self.columns:
                rows = with_columns(rows, self.model, names, device, on_row)
            if self.reference is not None:
                rows = self.reference.logps(rows, device, on_row)
        if not {"old_logp", "drawn_logp"} <= rows[0].token.keys():
            return rows, {}
        again, drawn = (torch.cat([row.token[name] for row in rows]) for name in ("old_logp", "drawn_logp"))
        return rows, logp_difference(again, drawn)

    def _steps(self, number: int, parts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """Epochs take the same parts, each in an order of its own."""
        return tuple(
            tuple(parts[part])
            for epoch in range(self.shape.epochs)
            for part in np.random.default_rng((self.shape.seed, number, epoch)).permutation(len(parts))
        )


def record_of(question: Question, answers: Sequence[Answer], first_place: int) -> Record:
    """A prompt and its answers as one tree; the loss sees the answers."""
    prompt = len(question.token)
    chains = []
    for answer in answers:
        token = np.array([*question.token, *answer.token], dtype=np.int32)
        chains.append(Chain(token, np.arange(len(token)) >= prompt))
    places = range(first_place, first_place + len(answers))
    columns = {
        "place": tuple(float(place) for place in places),
        "truncated": tuple(float(not answer.finished) for answer in answers),
    }
    return Record(first_place, tuple(chains), columns)


def split_group(record: Record, row_tokens: int, layout: str) -> list[Record]:
    """The record, or several with some of its answers each, so that each fits a row."""
    if len(record.chains) == 1 or segment_tokens(record, layout) <= row_tokens:
        return [record]
    half = len(record.chains) // 2
    parts = [
        Record(
            record.index + span.start,
            record.chains[span],
            {name: values[span] for name, values in record.sequence.items()},
        )
        for span in (slice(0, half), slice(half, len(record.chains)))
    ]
    return [piece for part in parts for piece in split_group(part, row_tokens, layout)]


def with_drawn_logps(row: Batch, answers: Sequence[Answer]) -> Batch:
    """The row with the generator's own log-probabilities, as the token column `drawn_logp`."""
    places = row.sequence["place"].long().tolist()
    drawn = [logp for place in places for logp in answers[place].logp]
    return row.with_columns(token={"drawn_logp": torch.tensor(drawn, dtype=torch.float32)})
