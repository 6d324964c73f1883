"""Which stage takes what from which: names that were mistyped, stages that cannot feed each other, circles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path as FilePath
from typing import Any

from groundup.config import words
from groundup.config.problems import Problem

KEYS = ("from", "tokenizer", "model", "reference")  # settings that may name another stage
MODELS = ("pretrain", "sft", "dpo", "grpo", "ppo", "merge")
ACCEPTED = {
    ("tokenizer", "from"): ("clean",),
    ("shards", "from"): ("clean",),
    ("shards", "tokenizer"): ("tokenizer", *MODELS),
    ("pretrain", "from"): ("shards",),
    ("pretrain", "model"): MODELS,
    ("sft", "from"): MODELS,
    ("reward", "from"): MODELS,
    ("dpo", "from"): MODELS,
    ("dpo", "reference"): MODELS,
    ("grpo", "from"): MODELS,
    ("ppo", "from"): MODELS,
    ("grpo", "rewards"): ("reward",),
    ("ppo", "rewards"): ("reward",),
    ("merge", "from"): ("sft", "dpo", "grpo", "ppo", "reward"),
    ("eval", "from"): MODELS,
}
MAKES = {
    "clean": "documents",
    "tokenizer": "a tokenizer",
    "shards": "token shards",
    "reward": "a reward model, which scores texts and cannot write any",
    "eval": "a comparison",
}


def check(raw: Mapping[str, Any], kinds: Mapping[str, str], broken: Collection[Any] = ()) -> list[Problem]:
    """`raw`: the recipe before validation; `kinds`: stage name to kind; `broken`: stages that have no kind."""
    found = []
    kinds_made = _kinds_made(raw, kinds)
    inputs: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        stage = raw["stages"][name]
        named = {key: stage[key] for key in KEYS if isinstance(stage.get(key), str)}
        inputs[name] = [value for value in named.values() if value in kinds]
        for key, value in named.items():
            if value in broken:
                continue
            answers = ACCEPTED.get((kind, key)) is MODELS
            problem = _check_one(("stages", name, key), kind, value, kinds_made if answers else kinds)
            if problem is not None:
                found.append(problem)
        for path, reward in _model_rewards(("stages", name, "rewards"), stage.get("rewards")):
            inputs[name] += [reward["model"]] if reward["model"] in kinds else []
            problem = None if reward["model"] in broken else _check_reward(path, kind, reward, kinds_made)
            if problem is not None:
                found.append(problem)
    circle = _circle(inputs)
    if circle:
        what = f"Stages wait for each other in a circle: {' → '.join(circle)}."
        found.append(
            Problem(("stages", circle[0], "from"), what, "Let one of them start from something else.")
        )
    return found


def _model_rewards(path: words.Path, rewards: Any) -> list[tuple[words.Path, dict[str, Any]]]:
    """Rewards that name a model, and where they do."""
    given = enumerate(rewards) if isinstance(rewards, list) else []
    return [
        ((*path, place, "model"), reward)
        for place, reward in given
        if isinstance(reward, dict) and isinstance(reward.get("model"), str)
    ]


def _check_reward(
    path: words.Path, kind: str, reward: Mapping[str, Any], kinds: Mapping[str, str]
) -> Problem | None:
    value = reward["model"]
    if reward.get("function") == "sentiment" and kinds.get(value) == "reward":
        what = f"Stage {path[1]}: `model: {value}` makes a reward model, which has no classes."
        return Problem(path, what, "Use function: model, or name a classifier.")
    return _check_one(path, kind, value, kinds)


def _kinds_made(raw: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, str]:
    """Stage name to kind, where a stage that merges a reward model counts as one that makes it."""
    sources = {name: str(raw["stages"][name].get("from")) for name, kind in kinds.items() if kind == "merge"}
    return {
        name: "reward" if kinds.get(sources.get(name, "")) == "reward" else kind
        for name, kind in kinds.items()
    }


def _check_one(path: words.Path, kind: str, value: str, kinds: Mapping[str, str]) -> Problem | None:
    accepted = ACCEPTED.get((kind, str(path[2])))
    if accepted is None or value == path[1]:
        return None
    if value in kinds:
        if kinds[value] in accepted:
            return None
        what = f"Stage {path[1]}: `{path[-1]}: {value}` makes {MAKES.get(kinds[value], 'a model')}."
        takes = sorted(stage for stage, other in kinds.items() if other in accepted and stage != path[1])
        hint = f" Here that is: {', '.join(takes)}." if takes else ""
        return Problem(path, what, f"Name a stage of kind {' or '.join(accepted)}.{hint}")
    meant = words.nearest(value, (name for name in kinds if name != path[1]), cutoff=0.8)
    hint = f"Did you mean `{meant}`?" if meant else ""
    if not set(accepted) & {*MODELS, "reward"}:  # nothing but a stage can be meant
        other = f"Name a stage of kind {' or '.join(accepted)}."
        return Problem(path, f"Stage {path[1]}: there is no stage `{value}`.", hint or other)
    if meant is None or any(mark in value for mark in "/\\:") or FilePath(value).exists():
        return None
    return Problem(path, f"Stage {path[1]}: there is no stage or folder `{value}`.", hint)


def _circle(inputs: Mapping[str, list[str]]) -> list[str]:
    """The stages of one circle, first one repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in inputs[name]:
            circle = visit(other, [*trail, name])
            if circle:
                return circle
        done.add(name)
        return []

    return next((circle for name in inputs if (circle := visit(name, []))), [])
