"""Where the model that an evaluation names was made: in this recipe, or in another run."""

from __future__ import annotations

from dataclasses import replace

from groundup.config import load_recipe
from groundup.hub import resolve_model
from groundup.infer.origin import run_of, stage_of
from groundup.stages.context import Context


def origin_of(context: Context) -> Context | None:
    """The stage that made the model `from` names, in its own recipe and run; None for a model from elsewhere."""
    name = context.settings.from_
    if name in context.recipe.stages:
        return replace(context, name=name)
    folder = resolve_model(name).path
    run = run_of(folder)
    stage = stage_of(run, folder)
    if run is None or stage is None:
        return None
    return replace(context, recipe=load_recipe(run.recipe), name=stage, run=run)
