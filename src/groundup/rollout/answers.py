"""A policy's answers to prompts, and what rewards say of them."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from groundup.data.prompts import Task
from groundup.infer import answer_progress, generate
from groundup.model import LanguageModel
from groundup.rollout.rewards import Rewards
from groundup.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """A prompt as the model reads it, and the row that it came from."""

    token: tuple[int, ...]
    task: Task

    @property
    def key(self) -> str:
        return self.task.key

    @property
    def opening(self) -> str:
        return self.task.opening


@dataclass(frozen=True)
class Answer:
    token: tuple[int, ...]
    """With the token that ended it, if one did."""
    logp: tuple[float, ...]
    """Of each token, by the generator, at temperature 1."""
    finished: bool
    text: str
    """Without special tokens."""


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; the names are TRL's."""

    max_completion_length: int
    stop_tokens: Collection[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


def seed_of(seed: int, *purpose: object) -> int:
    """A number that is a function of these alone."""
    return zlib.crc32("/".join(map(str, (seed, *purpose))).encode())


def draw_answers(
    model: LanguageModel,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    samples: int,
    decoding: Decoding,
    seed: int,
    title: str = "",
) -> list[Answer]:
    """`samples` answers to each question, those to one question adjacent. Greedy where the temperature is 0.

    title: of the bar; without one it is that of a phase, which is shown where it takes a while.
    """
    most_tokens, stops = decoding.max_completion_length, decoding.stop_tokens
    answers = len(questions) * samples
    with answer_progress(title or "Answering", answers, most_tokens, stops, brief=not title) as on_token:
        found = generate(
            model,
            [question.token for question in questions],
            samples=samples,
            max_new_tokens=most_tokens,
            stop_tokens=stops,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            min_p=decoding.min_p,
            seed=seed,
            on_token=on_token,
        )
    return [
        Answer(
            tuple(one.token),
            tuple(one.logp),
            one.finished,
            answer_text(tokenizer, questions[place // samples], one.token),
        )
        for place, one in enumerate(found)
    ]


def answer_text(tokenizer: Tokenizer, question: Question, token: Sequence[int]) -> str:
    """The answer as text. One that continues its prompt begins as the whole text goes on, with a space perhaps."""

    def text(ids: Sequence[int], **how: bool) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, **how))

    if not question.task.continued:
        return text(token)
    # Spaces as they are: some tokenizers take away those before a full stop, and the prompt's last one with them.
    prompt = text(question.token, clean_up_tokenization_spaces=False)
    whole = text([*question.token, *token], clean_up_tokenization_spaces=False)
    return whole[len(prompt) :] if whole.startswith(prompt) else text(token)


@dataclass(frozen=True)
class Judgement:
    """What the answers to P prompts got, G each; float32 [P, G]. NaN: not known."""

    total_PG: Tensor
    each: dict[str, Tensor]
    """By reward function, without its weight."""
    told: dict[str, float] = field(default_factory=dict)
    """What reward functions logged by themselves."""


def score_answers(rewards: Rewards, questions: Sequence[Question], answers: Sequence[Answer]) -> Judgement:
    """Ask the rewards.

    Prompts and answers go out as messages where the row wrote messages, else as text: TRL's functions run as they are.
    """
    samples = len(answers) // len(questions)
    tasks = [question.task for question in questions for _ in range(samples)]
    names = list(dict.fromkeys(name for task in tasks for name in task.columns))
    columns: dict[str, Any] = {name: [task.columns.get(name) for task in tasks] for name in names}
    scores = rewards.score(
        [[m.as_dict() for m in task.messages] if task.conversational else task.text for task in tasks],
        [
            [{"role": "assistant", "content": answer.text}] if task.conversational else answer.text
            for task, answer in zip(tasks, answers, strict=True)
        ],
        columns | {"completion_ids": [list(answer.token) for answer in answers]},
    )
    each = {name: _table(values, samples) for name, values in scores.each.items()}
    return Judgement(_table(scores.total_N, samples), each, scores.metrics)


def _table(numbers: Any, samples: int) -> Tensor:
    return torch.as_tensor(numbers, dtype=torch.float32).view(-1, samples)
