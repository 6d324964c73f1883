"""What `groundup run` would do now: each stage, what it reads, whether it is done, and what this machine decided."""

from __future__ import annotations

from pathlib import Path

from groundup import console
from groundup.config.schema import Recipe
from groundup.machine import probe
from groundup.stages.context import Context
from groundup.stages.inputs import references, stage_fingerprint, stages_before
from groundup.stages.run import choose_stages
from groundup.store import Run, Stage
from groundup.store.files import read_json


def show_plan(recipe: Recipe, out: Path) -> None:
    """Print it; nothing is trained or written."""
    run = Run(out)
    machine = probe()
    console.say(f"{recipe.name} in {out}, on {machine.cores} cores, {machine.available_bytes / 1e9:.0f} GB of memory free")
    for number, name in enumerate(choose_stages(recipe, (), None, None), 1):
        settings = recipe.stages[name]
        reads = [*references(settings), *getattr(getattr(settings, "data", None), "path", [])]
        console.say(f"\n{number}. {name} ({settings.kind}): {_state(Context(recipe, name, run, machine))}")
        console.say(f"   reads {', '.join(reads)}")
        if run.stage(name).plan.exists():
            _say_decisions(run.stage(name))


def _state(context: Context) -> str:
    """done, changed, interrupted or to do."""
    stage = context.stage
    before = [context.run.stage(name) for name in stages_before(context.recipe, context.name)]
    if not stage.manifest.exists():
        checkpoints = stage.checkpoints()
        return f"goes on from {checkpoints[-1].name}" if checkpoints else "to do"
    if not all(earlier.manifest.exists() for earlier in before):
        return "to do again: an earlier stage is missing"
    if stage.finished(stage_fingerprint(context)) is None:
        return "to do again: its settings, data or inputs have changed"
    return "done"


def _say_decisions(stage: Stage) -> None:
    plan = read_json(stage.plan)
    console.say(f"   {plan['dtype']}: {plan['dtype_reason']}")
    console.say(
        f"   {plan['total_steps']:,} steps ({plan['total_steps_reason']}), up to {plan['row_tokens']:,} tokens at once, "
        f"about {plan['memory_bytes'] / 1e9:.1f} GB of memory"
    )
