"""What a run's folder tells: its stages in the recipe's order, each with its result and its logged metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class StageRecord:
    """One stage of the recipe. `result` and `metrics` are empty until it is finished."""

    name: str
    kind: str
    settings: dict[str, Any]
    finished: bool
    result: dict[str, Any]
    metrics: list[dict[str, Any]]

    def series(self, metric: str) -> Points:
        """(step, value) of every finite value, by step; of a step logged twice, before and after a resume, the last."""
        values = {
            line["step"]: float(line[metric])
            for line in map(_without_ties, self.metrics)
            if isinstance(line.get(metric), (int, float)) and math.isfinite(line[metric])
        }
        return sorted(values.items())

    def held_out(self, moment: str) -> dict[str, float]:
        """Metrics on held-out rows `before` or `after` the stage, without their prefix `eval_`."""
        values = _without_ties(self.result.get(moment) or {})
        return {
            name.removeprefix("eval_"): value
            for name, value in values.items()
            if isinstance(value, (int, float))
        }


def _without_ties(values: dict[str, Any]) -> dict[str, Any]:
    """A model compared with itself prefers nothing: its accuracy of 0 would look like a preference for the rejected."""
    tied = [
        f"{prefix}rewards/accuracies"
        for prefix in ("", "eval_")
        if values.get(f"{prefix}rewards/margins") == 0
    ]
    return {name: value for name, value in values.items() if name not in tied}


@dataclass(frozen=True)
class RunRecord:
    name: str
    root: str
    description: str
    stages: list[StageRecord]
    environment: dict[str, Any]
    recipe_text: str

    def finished(self, *kinds: str) -> list[StageRecord]:
        """The finished stages of these kinds; of every kind, if none is named."""
        return [stage for stage in self.stages if stage.finished and (not kinds or stage.kind in kinds)]


def read_run(run: Run) -> RunRecord:
    """Reads what exists. A run without a recipe shows the stages that were begun."""
    recipe = run.read_recipe()
    settings = run.planned_stages() or {stage.name: {} for stage in run.stages()}
    return RunRecord(
        name=recipe.get("name", run.name),
        root=str(run.root),
        description=recipe.get("description", ""),
        stages=[_read_stage(run, name, values) for name, values in settings.items()],
        environment=read_json(run.environment) if run.environment.exists() else {},
        recipe_text=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else "",
    )


def _read_stage(run: Run, name: str, settings: dict[str, Any]) -> StageRecord:
    stage = run.stage(name)
    result = stage.read_result()
    return StageRecord(
        name=name,
        kind=str(settings.get("kind") or (result or {}).get("kind", "")),
        settings=settings,
        finished=result is not None,
        result=result or {},
        metrics=read_jsonl(stage.metrics) if result is not None else [],
    )
