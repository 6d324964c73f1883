"""A recipe's stages, one after another: what is finished is reused, what was interrupted goes on."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup import console
from groundup.config import recipe_to_yaml
from groundup.config.schema import Recipe
from groundup.errors import UserError
from groundup.hub.runs import list_models
from groundup.machine import probe
from groundup.report import write_report
from groundup.stages.context import Context
from groundup.stages.inputs import check_inputs, stage_fingerprint, stages_before
from groundup.store import Run, environment
from groundup.store.files import read_json, write_json, write_text

MODULE_BY_KIND = {
    "clean": "clean",
    "tokenizer": "tokenizer",
    "shards": "shards",
    "pretrain": "pretrain",
    "sft": "posttrain",
    "dpo": "posttrain",
    "merge": "merge",
    "eval": "evaluate",
}


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    only: Sequence[str] = (),
    from_stage: str | None = None,
    until: str | None = None,
    rehearse: bool = False,
) -> None:
    """Run the chosen stages of `recipe` in the folder `out`. Raises UserError with the stage's name in it."""
    chosen = choose_stages(recipe, only, from_stage, until)
    if rehearse:  # in an empty folder, so what the chosen stages read is rehearsed too
        needed = {*chosen, *(earlier for name in chosen for earlier in stages_before(recipe, name))}
        chosen = [name for name in choose_stages(recipe, (), None, None) if name in needed]
    check_inputs(recipe, chosen)
    if rehearse:
        rehearse_recipe(recipe, chosen)
        return
    run = Run.open(out)
    with console.attach_log(run.log):
        began = time.monotonic()
        write_text(run.recipe, recipe_to_yaml(recipe))
        record_environment(run)
        context = Context(recipe, chosen[0], run, probe())
        try:
            for number, name in enumerate(chosen, 1):
                console.say(f"\n[{number}/{len(chosen)}] {name}")
                run_stage(replace(context, name=name))
        except UserError:
            write_report(run)  # what is finished is worth reading, and the report says what is not
            raise
        write_report(run)
        say_what_next(run, time.monotonic() - began)


def record_environment(run: Run) -> None:
    """Write down what the numbers may depend on; a run that goes on elsewhere is told what is different."""
    now = environment.collect()
    if run.environment.exists():
        changed = environment.differences(read_json(run.environment), now)
        if changed:
            console.warn("this run began in another environment: " + "; ".join(changed[:3]) + (" …" * (len(changed) > 3)))
    write_json(run.environment, now)


def choose_stages(recipe: Recipe, only: Sequence[str], from_stage: str | None, until: str | None) -> list[str]:
    """The stages to run, so that what a stage reads comes before it, else in the recipe's order."""
    for name in [*only, *filter(None, (from_stage, until))]:
        if name not in recipe.stages:
            raise UserError(
                f"there is no stage '{name}' in recipe {recipe.name}", fix=f"its stages: {', '.join(recipe.stages)}"
            )
    order: list[str] = []
    for name in recipe.stages:
        order += [earlier for earlier in [*stages_before(recipe, name), name] if earlier not in order]
    if only:
        return [name for name in order if name in only]
    first = order.index(from_stage) if from_stage else 0
    last = order.index(until) if until else len(order) - 1
    if first > last:
        raise UserError(f"stage '{from_stage}' comes after stage '{until}'", fix="swap --from and --until")
    return order[first : last + 1]


def run_stage(context: Context) -> dict[str, Any]:
    """Run one stage, or reuse it when nothing that it depends on has changed."""
    stage, settings = context.stage, context.settings
    for name in stages_before(context.recipe, context.name):
        if not context.run.stage(name).manifest.exists():
            raise UserError(
                f"stage {context.name} needs stage {name}, which is not finished",
                where=str(context.run.stage(name).root),
                fix=f"run it first: leave out --only and --from, or add --only {name}",
            )
    with stage.lock():
        fingerprint = stage_fingerprint(context)
        done = stage.finished(fingerprint)
        if done is not None:
            console.say("  already done; nothing that it depends on has changed")
            return done
        if stage.started(fingerprint) and stage.checkpoints():
            console.say(f"  going on from {stage.checkpoints()[-1].name}")
        module = importlib.import_module(f"groundup.stages.{MODULE_BY_KIND[settings.kind]}")
        result: dict[str, Any] = module.run(context)
        stage.finish(fingerprint, result)
        return result


def rehearse_recipe(recipe: Recipe, chosen: Sequence[str]) -> None:
    """Every stage for two steps on its longest rows in a throw-away folder; then what would have failed late.

    A stage that fails does not keep the others from being tried, except those that read what it would have made.
    Raises UserError that lists all that was found.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"groundup-rehearsal-{recipe.name}-"))
    failed: dict[str, UserError] = {}
    skipped: list[str] = []
    try:
        run = Run.open(folder)
        with console.attach_log(run.log):
            write_text(run.recipe, recipe_to_yaml(recipe))
            context = Context(recipe, chosen[0], run, probe(), rehearse=True)
            for number, name in enumerate(chosen, 1):
                console.say(f"\n[{number}/{len(chosen)}] {name} (rehearsal)")
                if any(earlier in failed or earlier in skipped for earlier in stages_before(recipe, name)):
                    skipped.append(name)
                    console.say("  not tried: an earlier stage failed")
                    continue
                try:
                    run_stage(replace(context, name=name))
                except UserError as error:
                    failed[name] = error
                    console.error(error)
            if not failed:
                write_report(run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        raise UserError(
            f"the rehearsal found {len(failed)} problem(s) that a real run would have met",
            why="\n".join(f"{name}: {error.what}" for name, error in failed.items()),
            fix="mend what is said above, then rehearse again"
            + (f" (not tried yet: {', '.join(skipped)})" if skipped else ""),
        )
    console.say(f"\nThe rehearsal went through: {', '.join(chosen)}. Nothing was kept.")


def say_what_next(run: Run, seconds: float) -> None:
    """Where everything is, and what a person would do next."""
    console.say(f"\nDone in {console.duration(seconds)}.")
    console.say(f"  report       {run.report_html}")
    if list_models(run):
        console.say(f"  chat         groundup chat {run.root}")
    console.say(f"  curves       tensorboard --logdir {run.root}")
    console.say(f"  full log     {run.log}")
    console.say("  your data    groundup init sft-dpo, then edit it; or groundup sft --model M --data F")


