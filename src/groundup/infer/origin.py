"""What a run's folder says about a model in it: its stage, what it was made from, its chat settings, its dtype."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from groundup.config.schema import ChatSettings
from groundup.errors import UserError
from groundup.store import Run, files


def run_of(folder: Path) -> Run | None:
    """The run that a model folder lies in: RUN/STAGE/final or RUN/models/NAME."""
    for root in folder.resolve().parents[:2]:
        if Run(root).recipe.is_file():
            return Run.open(root, create=False)
    return None


def stage_of(run: Run | None, folder: Path) -> str | None:
    """The stage of the run that made this model folder; None for a model from elsewhere."""
    stage = folder.resolve().parent
    if run is None or stage.parent != run.root.resolve():
        return None
    return stage.name if stage.name in run.planned_stages() else None


def lineage(run: Run, stage: str) -> list[str]:
    """Stages from what the chain began with, which may be a model's name, to `stage`."""
    stages, chain = run.planned_stages(), [stage]
    while chain[0] in stages:
        settings = stages[chain[0]]
        before = settings.get("model") if settings["kind"] == "pretrain" else settings.get("from")
        if not before or before in chain:
            break
        chain.insert(0, before)
    return chain


def chat_settings(run: Run | None) -> ChatSettings:
    """The run's chat settings; the defaults where there is no run. UserError where they cannot be understood."""
    written = run.read_recipe().get("chat") if run else None
    try:
        return ChatSettings(**(written or {}))
    except (ValidationError, TypeError) as error:
        where = str(run.recipe) if run else ""
        raise UserError("the run's chat settings cannot be read", where=where, why=str(error)) from error


def planned_dtype(run: Run | None, folder: Path) -> str | None:
    """The dtype that the model's stage, or the nearest one before it, was planned to compute in."""
    return _planned(run, folder, "dtype")


def planned_layout(run: Run | None, folder: Path) -> str | None:
    """The layout that was found to be exact for the model's stage, or the nearest one before it."""
    return _planned(run, folder, "layout")


def _planned(run: Run | None, folder: Path, what: str) -> str | None:
    stage = stage_of(run, folder)
    if run is None or stage is None:
        return None
    for name in reversed(lineage(run, stage)):
        if name in run.planned_stages() and run.stage(name).plan.is_file():
            return str(files.read_json(run.stage(name).plan)[what])
    return None
