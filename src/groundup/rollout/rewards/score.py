"""Several rewards as one number an answer, and what happens where one of them fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from groundup.errors import UserError
from groundup.rollout.rewards.child import Asked
from groundup.rollout.rewards.process import Judged
from groundup.rollout.rewards.shipped import text_of

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings

LOG = logging.getLogger(__name__)
SHOWN_CHARACTERS = 200


class Failure(NamedTuple):
    """An answer that a reward has no number for."""

    row: int
    reward: str
    """Its name; empty where no reward applies to the answer."""
    reason: str


@dataclass(frozen=True)
class Scores:
    """What n answers are worth."""

    total_N: np.ndarray
    """float64 [n]: sum of weight times value over the rewards that apply. NaN: leave the answer out of the step."""
    each: dict[str, np.ndarray]
    """float64 [n] a reward, without its weight. NaN: it does not apply, or failed with on_error: skip."""
    failures: list[Failure]
    metrics: dict[str, float] = field(default_factory=dict)
    """Means of what functions told with log_metric."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """What functions told with log_extra."""


class Reward(Protocol):
    """One function: in a process (`RewardProcess`) or on the model's device (`models.py`)."""

    settings: RewardSettings

    def judge(self, asked: Asked) -> Judged: ...

    def end(self) -> object: ...


class Rewards:
    """To be closed when no more answers come; `with` does so."""

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self.rewards = rewards

    def __enter__(self) -> Rewards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for reward in self.rewards:
            reward.end()

    def score(self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> Scores:
        """Judge n answers.

        prompts, completions: texts, or lists of messages (dicts with role and content), as TRL hands them.
        columns: the data's other columns, n values each, `completion_ids` among them where known; `trainer_state` is
        handed on as it is. Raises UserError where a column is missing, and where a reward with on_error: stop fails.
        """
        given = {name: value if name == "trainer_state" else list(value) for name, value in columns.items()}
        asked = Asked(list(prompts), list(completions), given)
        for name, values in {"prompts": asked.prompts, **given}.items():
            assert name == "trainer_state" or len(values) == len(asked), f"{name}: {len(values)} values"
        total_N, applies_N = np.zeros(len(asked)), np.zeros(len(asked), dtype=bool)
        each: dict[str, np.ndarray] = {}
        failures: list[Failure] = []
        metrics: dict[str, float] = {}
        extra: dict[str, list[Any]] = {}
        for reward in self.rewards:
            judged = reward.judge(asked)
            value_N, failed = _numbers(judged, reward.settings)
            if failed and reward.settings.on_error == "stop":
                raise _stopped(failed, asked, reward.settings)
            failures += failed
            skipped = [failure.row for failure in failed if reward.settings.on_error == "skip"]
            known_N = ~np.isnan(value_N)
            total_N[known_N] += reward.settings.weight * value_N[known_N]
            total_N[skipped] = math.nan
            applies_N[skipped] = True
            applies_N |= known_N
            each[reward.settings.metric_name] = value_N
            metrics |= {name: float(np.mean(values)) for name, values in judged.metrics.items()}
            extra |= {name: values for name, values in judged.extra.items() if len(values) == len(asked)}
        failures += [Failure(int(row), "", "no reward applies to it") for row in np.flatnonzero(~applies_N)]
        total_N[~applies_N] = math.nan
        _tell(failures)
        return Scores(total_N, each, failures, metrics, extra)


def _numbers(judged: Judged, settings: RewardSettings) -> tuple[np.ndarray, list[Failure]]:
    """Values as float64 [n], failures replaced as the recipe says, and these failures."""
    failed_value = 0.0 if settings.on_error == "zero" else math.nan
    value_N = np.full(len(judged.values), failed_value)
    failed = []
    for row, value in enumerate(judged.values):
        if isinstance(value, str):
            failed.append(Failure(row, settings.metric_name, value))
        elif value is None:
            value_N[row] = math.nan
        elif not math.isfinite(value):
            failed.append(Failure(row, settings.metric_name, f"it returned {value}"))
        else:
            value_N[row] = value
    return value_N, failed


def _stopped(failed: Sequence[Failure], asked: Asked, settings: RewardSettings) -> UserError:
    first = failed[0]
    prompt, completion = (
        f"{text_of(said[first.row])!r:.{SHOWN_CHARACTERS}}" for said in (asked.prompts, asked.completions)
    )
    more = f" (and for {len(failed) - 1} more of {len(asked)})" if len(failed) > 1 else ""
    return UserError(
        f"the reward {settings.metric_name} has no number for answer {first.row + 1}{more}",
        where=str(settings.file or ""),
        why=f"{first.reason}\nprompt: {prompt}\nanswer: {completion}",
        fix="correct the function, or set on_error: zero or on_error: skip on this reward to go on without it",
    )


def _tell(failures: Sequence[Failure]) -> None:
    """Each reason once, with the rows, into the log."""
    rows: dict[tuple[str, str], list[int]] = {}
    for failure in failures:
        rows.setdefault((failure.reward, failure.reason), []).append(failure.row + 1)
    for (reward, reason), places in rows.items():
        LOG.warning("reward %s: %s: answers %s", reward or "(all)", reason, ", ".join(map(str, places)))
