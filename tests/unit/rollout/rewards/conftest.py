"""Reward functions as a person would write them, and rewards that are closed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.config.rewards import RewardSettings
from groundup.rollout.rewards import Rewards, load_rewards

FUNCTIONS = """
import os, time

def brevity(completions, **kwargs):
    return [-float(len(text)) for text in completions]

def asked(prompts, completions, completion_ids, trainer_state, level, log_metric, log_extra, **columns):
    print("what a function prints is not the trainer's output")
    log_metric("ids", sum(len(ids) for ids in completion_ids) / len(completion_ids))
    log_extra("seen", [prompt + completion for prompt, completion in zip(prompts, completions)])
    return [float(trainer_state["global_step"] + level * number) for number in columns["number"]]

async def later(completions, **kwargs):
    return [1.0 for _ in completions]

def only_completions(completions):
    return [len(text) for text in completions]

def messages(completions, **kwargs):
    return [float(completion[0]["content"] == "yes") for completion in completions]

def troubled(completions, **kwargs):
    values = []
    for text in completions:
        if text == "raise":
            raise KeyError("no such word")
        if text == "hang":
            while True:
                pass
        if text == "sleep":
            time.sleep(600)
        if text == "die":
            os._exit(3)
        values.append({"nan": float("nan"), "inf": float("inf"), "none": None, "word": "five"}.get(text, 1.0))
    return values

def short(completions, **kwargs):
    return [1.0]

def together(completions, **kwargs):
    if len(completions) > 1:
        raise ValueError("one at a time, please")
    return [1.0]

always = lambda completions, **kwargs: [1.0] * len(completions)
"""


@pytest.fixture(scope="session")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rewards") / "mine.py"
    file.write_text(FUNCTIONS, encoding="utf-8")
    return file


@pytest.fixture
def load() -> Iterator[Callable[..., Rewards]]:
    opened: list[Rewards] = []

    def make(*settings: dict[str, Any] | str) -> Rewards:
        opened.append(load_rewards([RewardSettings.model_validate(each) for each in settings]))
        return opened[-1]

    yield make
    for rewards in opened:
        rewards.close()
