"""Finding models in the run folders that Groundup writes."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import UserError
from groundup.store import Run, Stage, files

MODEL_CONFIGS = ("config.json", "adapter_config.json")


def is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file() and not holds_model(folder)


def is_stage(folder: Path) -> bool:
    marks = ("final", "started.json", "manifest.json")
    return (
        is_run(folder.parent) and not holds_model(folder) and any((folder / mark).exists() for mark in marks)
    )


def holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODEL_CONFIGS)


def list_models(run: Run | Path | str, answering: bool = False) -> list[tuple[str, Path]]:
    """(stage name, model folder) of every finished stage that made a model, in the recipe's order.

    answering: leave out reward models, which only score.
    """
    run = run if isinstance(run, Run) else Run.open(run, create=False)
    stages = [run.stage(name) for name in run.planned_stages()]
    return [
        (stage.name, stage.final)
        for stage in stages
        if _finished(stage) and not (answering and only_scores(stage.final))
    ]


def only_scores(folder: Path) -> bool:
    """Whether the folder holds a reward model, or the adapter of one."""
    adapter, config = folder / "adapter_config.json", folder / "config.json"
    if adapter.is_file():
        return files.read_json(adapter).get("task_type") == "SEQ_CLS"
    names = files.read_json(config).get("architectures") or [] if config.is_file() else []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def last_model(folder: Path) -> Path:
    """The run's aligned model: what its last finished stage wrote that made one which answers, else a reward model."""
    run = Run.open(folder, create=False)
    if models := list_models(run, answering=True) or list_models(run):
        return models[-1][1]
    done = [name for name in run.planned_stages() if run.stage(name).manifest.is_file()]
    raise UserError(
        f"The run {folder} holds no finished model yet.",
        why=f"finished so far: {', '.join(done) if done else 'nothing'}",
        fix=f"finish it: groundup run {run.recipe}",
    )


def stage_model(folder: Path) -> Path:
    """The model folder of one stage of a run."""
    run = Run.open(folder.parent, create=False)
    stage = run.stage(folder.name)
    if _finished(stage):
        return stage.final
    if stage.manifest.is_file():
        raise UserError(
            f"The stage {folder} made no model.",
            fix=f"name a stage that did, or the whole run: {run.root}",
        )
    raise UserError(
        f"The stage {folder} is not finished.",
        why="it has no manifest.json, which is written last",
        fix=f"finish it: groundup run {run.recipe}",
    )


def _finished(stage: Stage) -> bool:
    return stage.manifest.is_file() and holds_model(stage.final)
