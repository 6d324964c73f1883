"""What a stage is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from groundup.config.schema import Recipe
from groundup.errors import UserError
from groundup.machine import Machine
from groundup.store import Run, Stage

REHEARSAL_STEPS = 2
REHEARSAL_ITEMS = 2
REHEARSAL_TOKENS = 8
REHEARSAL_DOCUMENTS = 200

Item = TypeVar("Item")


@dataclass(frozen=True)
class Context:
    """One stage of one recipe in one run folder, on this machine."""

    recipe: Recipe
    name: str
    run: Run
    machine: Machine
    rehearse: bool = False

    @property
    def settings(self) -> Any:
        """The stage's own settings, of the type that its kind has."""
        return self.recipe.stages[self.name]

    @property
    def stage(self) -> Stage:
        return self.run.stage(self.name)

    def few(self, items: list[Item]) -> list[Item]:
        """All of them, or the first ones in a rehearsal."""
        return items[:REHEARSAL_ITEMS] if self.rehearse else items

    def input_stage(self, name: str, kind: str) -> Stage:
        """The finished stage `name` of this run, which must be of `kind`."""
        settings = self.recipe.stages.get(name)
        if settings is None or settings.kind != kind:
            what = "is no stage of this recipe" if settings is None else f"is a {settings.kind} stage"
            right = [n for n, s in self.recipe.stages.items() if s.kind == kind]
            raise UserError(
                f"stage {self.name} needs a {kind} stage, and '{name}' {what}",
                where=f"stages.{self.name}.from",
                fix=f"use one of: {', '.join(right)}" if right else f"add a stage of kind {kind}",
            )
        return self.run.stage(name)
