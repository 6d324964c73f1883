"""Small policies that answer prompts of one token, and rewards that can be worked out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from groundup.config.schema import LoraSettings
from groundup.data.prompts import Task
from groundup.data.types import Message, Origin
from groundup.model import BaseLLM, ModelConfig, PolicyValue, attach_lora, initialize
from groundup.objective import Ppo
from groundup.rollout.answers import Decoding, Question
from groundup.rollout.reference import make_reference
from groundup.rollout.rewards import Scores
from groundup.rollout.source import Rollouts, Shape

VOCABULARY = 8
STOP = 0


class Letters:
    """A tokenizer whose texts are the tokens' numbers."""

    def decode(self, token: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(str(t) for t in token if not (skip_special_tokens and t == STOP))


class Judge:
    """Rewards by a function of (prompt's number, answer's tokens)."""

    def __init__(self, worth: Callable[[int, list[int]], float]) -> None:
        self.worth = worth
        self.calls = 0

    def score(self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> Scores:
        self.calls += 1
        answers = columns["completion_ids"]
        total = np.array([self.worth(int(p), ids) for p, ids in zip(prompts, answers)], dtype=np.float64)
        return Scores(total, {"judge": total}, [])


def tiny(seed: int = 0, lora: bool = False, initializer_range: float = 0.1) -> BaseLLM:
    config = ModelConfig.from_hf(
        {
            **{"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24},
            **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1},
            **{"max_position_embeddings": 32, "tie_word_embeddings": False},
            "initializer_range": initializer_range,
        }
    )
    model = initialize(BaseLLM(config), seed)
    if lora:
        attach_lora(model, LoraSettings(r=8, lora_alpha=16.0), seed=seed)
    return model


def twin(policy: BaseLLM) -> BaseLLM:
    """The same weights again."""
    other = tiny()
    other.load_state_dict(policy.state_dict())
    return other


def question(number: int) -> Question:
    message = Message("user", str(number))
    return Question((number,), Task((message,), {"number": number}, False, Origin("made up", number)))


def rollouts(
    policy: BaseLLM,
    objective: Any,
    worth: Callable[[int, list[int]], float],
    *,
    prompts: Sequence[int] = (1, 2, 3, 4),
    batch: int = 4,
    parts: int = 1,
    epochs: int = 1,
    samples: int = 8,
    row_tokens: int = 64,
    layout: str = "shared",
    length: int = 1,
    stop: Sequence[int] = (),
    temperature: float = 1.0,
    seed: int = 0,
    **more: Any,
) -> Rollouts:
    """A source over `prompts`; PPO's policy gets its value function here."""
    policy.temperature = temperature
    penalised = getattr(objective, "beta", 0.0) or getattr(objective, "kl_coef", 0.0)
    reference = make_reference(policy, lambda: twin(policy)) if penalised else None
    model: Any = policy
    columns: tuple[dict[str, str], ...] = ()
    if isinstance(objective, Ppo):
        model = PolicyValue(policy)
        objective = dataclasses.replace(objective, separate=model.separate)
        columns = ({"old_logp": "logp"}, {"value": "value"})
    elif parts * epochs > 1 or objective.kl_in == "reward":
        columns = ({"old_logp": "logp"},)
    return Rollouts(
        policy=policy,
        model=model,
        objective=objective,
        tokenizer=Letters(),
        questions=[question(number) for number in prompts],
        rewards=Judge(worth),
        decoding=Decoding(length, stop, temperature),
        shape=Shape(batch, parts, epochs, samples, row_tokens, layout, "cpu", seed, more.pop("resamples", 0)),
        columns=columns,
        reference=reference,
        **more,
    )


@pytest.fixture(scope="session")
def make_rollouts() -> Callable[..., Rollouts]:
    return rollouts


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., BaseLLM]:
    return tiny
