"""What `groundup run` would do now: each stage, what it reads, whether it is done, and what this machine decided."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from groundup import console
from groundup.config.schema import Recipe
from groundup.machine import probe
from groundup.stages.context import Context
from groundup.stages.inputs import references, stage_fingerprint, stages_before
from groundup.stages.run import choose_stages
from groundup.store import Run, Stage
from groundup.store.files import read_json

DONE = "done"


def show_plan(recipe: Recipe, out: Path) -> None:
    """Print it; nothing is trained or written."""
    run = Run(out)
    machine = probe()
    free = f"{machine.available_bytes / 1e9:.0f} GB of memory free"
    console.say(f"{recipe.name} in {out}, on {machine.cores} cores, {free}")
    done: set[str] = set()
    for number, name in enumerate(choose_stages(recipe, (), None, None), 1):
        settings = recipe.stages[name]
        reads = [*references(settings), *getattr(getattr(settings, "data", None), "path", [])]
        state = _state(Context(recipe, name, run, machine), done)
        if state == DONE:
            done.add(name)
        console.say(f"\n{number}. {name} ({settings.kind}): {state}")
        console.say(f"   reads {', '.join(reads)}")
        if run.stage(name).plan.exists():
            _say_decisions(run.stage(name))


def _state(context: Context, done: Collection[str]) -> str:
    """DONE, changed, interrupted or to do. `done`: the earlier stages that are."""
    stage = context.stage
    if not all(name in done for name in stages_before(context.recipe, context.name)):
        return "to do after the stages that it reads" if stage.manifest.exists() else "to do"
    if not stage.manifest.exists() and not stage.checkpoints():
        return "to do"  # without its fingerprint, for which a hub's model would be downloaded
    fingerprint = stage_fingerprint(context)
    if stage.manifest.exists():
        return (
            DONE if stage.finished(fingerprint) else "to do again: its settings, data or inputs have changed"
        )
    checkpoints = stage.checkpoints() if stage.is_begun(fingerprint) else []
    return f"goes on from {checkpoints[-1].name}" if checkpoints else "to do"


def _say_decisions(stage: Stage) -> None:
    plan = read_json(stage.plan)
    console.say(f"   {plan['dtype']}: {plan['dtype_reason']}")
    console.say(
        f"   {plan['total_steps']:,} steps ({plan['total_steps_reason']}), up to {plan['row_tokens']:,} tokens "
        f"at once, about {plan['memory_bytes'] / 1e9:.1f} GB of memory"
    )
