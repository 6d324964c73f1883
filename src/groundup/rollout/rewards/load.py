"""From settings to rewards that judge, and what can be found wrong with them before."""

from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.errors import UserError
from groundup.rollout.rewards.process import RewardProcess
from groundup.rollout.rewards.score import Reward, Rewards
from groundup.rollout.rewards.shipped import read_schema

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings
    from groundup.store import Run

PACKAGES = {"math_verify": "math_verify", "json_schema": "jsonschema"}


def load_rewards(settings: Sequence[RewardSettings], run: Run | None = None, device: str = "cpu") -> Rewards:
    """All of them, ready to judge: processes started with their functions loaded, models opened on `device`.

    run: whose stages `model` may name. Raises UserError for whatever cannot be loaded.
    """
    check_rewards(settings)
    rewards: list[Reward] = []
    try:
        rewards += [RewardProcess(each) for each in settings if each.model is None]
        for each in settings:
            if each.model is not None:
                from groundup.rollout.rewards.models import ModelReward

                rewards.append(ModelReward(each, run, device))
        for reward in rewards:
            if isinstance(reward, RewardProcess):
                reward.ready()
    except BaseException:
        Rewards(rewards).close()
        raise
    order = {id(each): place for place, each in enumerate(settings)}
    return Rewards(sorted(rewards, key=lambda reward: order[id(reward.settings)]))


def check_rewards(settings: Sequence[RewardSettings]) -> None:
    """What can be told in a moment: names, packages, files and the functions in them. Raises UserError."""
    if not settings:
        raise UserError("no reward is named", fix="name at least one in `rewards`")
    doubled = [name for name, count in Counter(each.metric_name for each in settings).items() if count > 1]
    if doubled:
        raise UserError(
            f"two rewards are called {doubled[0]}",
            why="their numbers could not be told apart",
            fix="give each a name of its own: {function: …, name: …}",
        )
    for each in settings:
        package = PACKAGES.get(each.function)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"the reward {each.function} needs the package {package.replace('_', '-')}",
                fix='pip install "groundup[rewards]"',
            )
        if each.function == "json_schema":
            read_schema(each)
        if each.file is not None:
            _check_file(each)


def _check_file(settings: RewardSettings) -> None:
    """The file is Python and names the function; it is not run."""
    assert settings.file is not None
    file = settings.file.expanduser()
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(
            "the reward's file cannot be read",
            where=str(file),
            why=str(error.strerror or error),
            fix="correct its path; a relative one starts at the current folder",
        ) from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{file}:{line}" if line else str(file)
        raise UserError("the reward's file is not Python", where=where, why=str(error)) from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    if settings.function_name not in names and "*" not in names:
        functions = [
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        raise UserError(
            f"{file.name} has no function {settings.function_name}",
            where=str(file),
            why=f"it has {', '.join(functions)}" if functions else "it has no functions",
            fix="correct the name behind the colon",
        )
