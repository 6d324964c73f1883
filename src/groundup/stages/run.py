"""A recipe's stages, one after another: what is finished is reused, what was interrupted goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundup import console
from groundup.config import recipe_to_yaml
from groundup.config.schema import Recipe
from groundup.config.training import TrainSettings
from groundup.errors import UserError
from groundup.hub import cache_beside, list_models
from groundup.hub.errors import PROXIES
from groundup.machine import probe
from groundup.machine.process import check_alone
from groundup.report import write_report
from groundup.stages.context import Context
from groundup.stages.execute import run_stage
from groundup.stages.fetch import check_room, plan_recipe
from groundup.stages.inputs import check_inputs, stage_fingerprint, stages_before
from groundup.stages.rehearse import rehearse_recipe
from groundup.store import Run, environment
from groundup.store.files import read_json, write_json, write_text


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
    check_alone()
    chosen = choose_stages(recipe, only, from_stage, until)
    with cache_beside(Run(out.expanduser()).downloads):
        _run_stages(recipe, out, chosen, rehearse)


def _run_stages(recipe: Recipe, out: Path, chosen: list[str], rehearse: bool) -> None:
    if rehearse:  # in an empty folder, so what the chosen stages read is rehearsed too
        needed = {*chosen, *(earlier for name in chosen for earlier in stages_before(recipe, name))}
        chosen = [name for name in choose_stages(recipe, (), None, None) if name in needed]
    check_room(plan_recipe(recipe, chosen))  # of all that hubs are asked for, before the first large download
    check_inputs(recipe, chosen)
    warn_of_proxies(recipe, chosen)
    if rehearse:
        rehearse_recipe(recipe, chosen)
        return
    run = Run.open(out)
    with console.attach_log(run.log):
        began = time.monotonic()
        write_text(run.recipe, recipe_to_yaml(recipe))
        record_environment(run)
        context = Context(recipe, chosen[0], run, probe())
        warn_of_changes(context, chosen)
        try:
            for number, name in enumerate(chosen, 1):
                console.say(f"\n[{number}/{len(chosen)}] {name}")
                run_stage(replace(context, name=name))
        except UserError:
            write_report(run)  # what is finished is worth reading, and the report says what is not
            raise
        write_report(run)
        say_what_next(run, time.monotonic() - began)


def warn_of_changes(context: Context, chosen: Sequence[str]) -> None:
    """Say which stages are read as they are, though they would be made anew if they were not left out."""
    read = {earlier for name in chosen for earlier in stages_before(context.recipe, name)}
    for name in choose_stages(context.recipe, (), None, None):
        stage = context.run.stage(name)
        if name not in read or name in chosen or not stage.manifest.exists():
            continue
        try:
            changed = stage.finished(stage_fingerprint(replace(context, name=name))) is None
        except UserError:  # its data is gone, which its result does not need any more
            continue
        if changed:
            console.warn(
                f"stage {name} is used as it is, though its settings, data or inputs have changed since"
            )


def warn_of_proxies(recipe: Recipe, chosen: Sequence[str]) -> None:
    """A proxy is for downloads, which are done when training begins; it must not stand between local programs."""
    on = next((name for name in PROXIES if os.environ.get(name)), None)
    exempt = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").replace(" ", "").split(",")
    trains = any(isinstance(recipe.stages[name], TrainSettings) for name in chosen)
    if on and trains and not {"*", "localhost", "127.0.0.1"} & set(exempt):
        console.warn(
            f"{on} is on. Training itself needs no network, but programs of this machine that talk to each other "
            "(TensorBoard, Ray, several processes) would go through the proxy: set NO_PROXY=localhost,127.0.0.1"
        )


def record_environment(run: Run) -> None:
    """Write down what the numbers may depend on; a run that goes on elsewhere is told what is different."""
    now = environment.collect()
    if run.environment.exists():
        changed = environment.differences(read_json(run.environment), now)
        if changed:
            console.warn(f"the environment has changed since this run began: {'; '.join(changed[:3])}")
    write_json(run.environment, now)


def choose_stages(
    recipe: Recipe, only: Sequence[str], from_stage: str | None, until: str | None
) -> list[str]:
    """The stages to run, so that what a stage reads comes before it, else in the recipe's order."""
    for name in [*only, *filter(None, (from_stage, until))]:
        if name not in recipe.stages:
            raise UserError(
                f"there is no stage '{name}' in recipe {recipe.name}",
                fix=f"its stages: {', '.join(recipe.stages)}",
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


def say_what_next(run: Run, seconds: float) -> None:
    """Where everything is, and what a person would do next."""
    console.say(f"\nDone in {console.duration(seconds)}.")
    console.say(f"  report       {run.report_html}")
    if list_models(run, answering=True):
        console.say(f"  chat         groundup chat {run.root}")
    console.say(f"  curves       tensorboard --logdir {run.root}")
    console.say(f"  full log     {run.log}")
    console.say("  your data    groundup init sft-dpo, then edit it; or groundup sft --model M --data F")
