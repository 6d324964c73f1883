"""One stage: reused when nothing changed, gone on with when it was interrupted, else run."""

from __future__ import annotations

import importlib
from typing import Any

from groundup import console
from groundup.errors import UserError
from groundup.stages.context import Context
from groundup.stages.inputs import stage_fingerprint, stages_before

MODULE_BY_KIND = {
    "clean": "clean",
    "tokenizer": "tokenizer",
    "shards": "shards",
    "pretrain": "pretrain",
    "sft": "posttrain",
    "reward": "reward",
    "dpo": "posttrain",
    "grpo": "policy",
    "ppo": "policy",
    "merge": "merge",
    "eval": "evaluate",
}


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
        if stage.manifest.exists():
            console.say("  made again: its settings, data or inputs have changed, or its files are damaged")
        if stage.started(fingerprint) and stage.checkpoints():
            console.say(f"  going on from {stage.checkpoints()[-1].name}")
        stage.manifest.unlink(missing_ok=True)  # until it ends, nobody may take it for finished
        module = importlib.import_module(f"groundup.stages.{MODULE_BY_KIND[settings.kind]}")
        result: dict[str, Any] = module.run(context)
        stage.finish(fingerprint, result)
        return result
