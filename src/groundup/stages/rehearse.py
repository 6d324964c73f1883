"""A recipe tried in little: what would have failed late is found in minutes, and nothing is kept."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundup import console
from groundup.config import recipe_to_yaml
from groundup.config.schema import Recipe
from groundup.errors import UserError
from groundup.export import merge_adapter
from groundup.infer import generate, load_for_inference
from groundup.machine import probe
from groundup.report import write_report
from groundup.stages.context import REHEARSAL_TOKENS, Context
from groundup.stages.execute import run_stage
from groundup.stages.inputs import stages_before
from groundup.stages.models import find_model
from groundup.store import Run
from groundup.store.files import write_text


def rehearse_recipe(recipe: Recipe, chosen: Sequence[str]) -> None:
    """Every stage for two steps on its longest rows in a throw-away folder; then what would have failed late.

    Each model is saved, read back, asked and merged. A stage that fails does not keep the others from being tried,
    except those that read what it would have made. Raises UserError that lists all that was found.
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
                elif problem := _try_stage(replace(context, name=name)):
                    failed[name] = problem
                    console.error(problem)
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


def _try_stage(context: Context) -> UserError | None:
    """Run the stage and use what it made; the problem, if there is one, whatever its kind."""
    try:
        run_stage(context)
        _use_model(context)
    except UserError as error:
        return error
    except Exception as error:  # a bug would end the real run too, so it belongs on the list
        logging.getLogger(__name__).exception("rehearsal of %s", context.name)
        kept = Path(tempfile.gettempdir()) / f"{context.run.name}.log"
        shutil.copyfile(context.run.log, kept)
        return UserError(
            f"{type(error).__name__}: {error}",
            where=f"stage {context.name}",
            why="this is a bug in Groundup, or in a library that it uses",
            fix=f"the traceback is in {kept}; please report it",
        )
    return None


def _use_model(context: Context) -> None:
    """Read back, ask and merge the model that the stage made, if it made one."""
    if context.settings.kind not in ("pretrain", "sft", "reward", "dpo", "grpo", "ppo"):
        return
    if context.settings.kind != "reward":
        loaded = load_for_inference(context.name, context.run)
        prompt = loaded.tokenizer("Hello")["input_ids"]
        generate(loaded.model, [prompt], max_new_tokens=REHEARSAL_TOKENS, stop_tokens=loaded.stop_tokens)
    source = find_model(context, context.name)
    if source.adapter is not None:
        merge_adapter(source.adapter, source.base, context.run.root / "models" / f"{context.name}-merged")
