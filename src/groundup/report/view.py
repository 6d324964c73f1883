"""All that the report shows: the page and the Markdown only lay it out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from groundup.report import tables
from groundup.report.headline import Tile, summary, tiles
from groundup.report.reading import RunRecord
from groundup.report.sections import Section, pairs, section

TUNED = ("sft", "dpo", "grpo", "ppo", "merge")
"""Kinds of stages that make a model out of another."""


@dataclass(frozen=True)
class View:
    name: str
    description: str
    summary: str
    stages: list[tuple[str, bool]]
    """Name, and whether it is finished."""
    tiles: list[Tile]
    models: tables.Table | None
    generations: list[tables.Generation]
    sections: list[Section]
    environment: list[tuple[str, str]]
    packages: list[tuple[str, str]]
    recipe: str
    commands: list[tuple[str, str]]


def build_view(record: RunRecord) -> View:
    """The last evaluation stands on top; every finished stage has a section of its own."""
    evaluated = record.finished("eval")
    last = evaluated[-1].result if evaluated else {}
    generations = tables.side_by_side(last.get("generations") or [])
    environment = dict(record.environment)
    packages, variables = environment.pop("packages", {}), environment.pop("variables", {})
    return View(
        name=record.name,
        description=record.description,
        summary=summary(record),
        stages=[(stage.name, stage.finished) for stage in record.stages],
        tiles=tiles(record),
        models=tables.models_compared(last.get("models") or []),
        generations=generations,
        sections=[section(stage, evaluated=bool(generations)) for stage in record.finished()],
        environment=pairs({**environment, **variables}),
        packages=list(packages.items()),
        recipe=record.recipe_text,
        commands=_commands(record),
    )


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    """What a person would do next: (what for, the line to type)."""
    root = shlex.quote(record.root)
    commands = []
    if record.finished("pretrain", *TUNED):
        commands.append(("Chat with the result", f"groundup chat {root}"))
    commands += [
        (f"Let the base model {stage.name} go on with your text", f"groundup chat {root}/{stage.name}")
        for stage in record.finished("pretrain")
        if record.finished(*TUNED)
    ]
    commands += [
        (
            f"Train a model for what the reward model {stage.name} scores",
            "groundup grpo --model MODEL --data FILE --reward "
            + shlex.quote(f"{{function: model, model: {record.root}/{stage.name}}}"),
        )
        for stage in record.finished("reward")
    ]
    unfinished = not all(stage.finished for stage in record.stages)
    commands.append(("Explore the curves", f"tensorboard --logdir {root}"))
    commands.append(
        (
            "Go on where it stopped"
            if unfinished
            else "Change the recipe and run it again; what stays the same is reused",
            f"groundup run {root}/recipe.yaml --out {root}",
        )
    )
    commands.append(("See whether this machine is still the same", f"groundup doctor --against {root}"))
    return commands
