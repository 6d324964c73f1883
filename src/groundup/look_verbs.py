"""Verbs that look at models and runs: compare, report."""

from __future__ import annotations

from pathlib import Path

import click

from groundup import console
from groundup.stage_verbs import SOURCES


@click.command()
@click.argument("models", metavar="A [B]", nargs=-1, required=True)
@click.option(
    "--data",
    "files",
    multiple=True,
    metavar="F",
    help=f"Pairs or questions: {SOURCES}; otherwise what the run held out. Repeatable.",
)
@click.option("--config", metavar="NAME", help="Which configuration of a hub's data set.")
@click.option("--split", metavar="S", help="Which part of a folder or data set.  [default: train]")
@click.option(
    "--subset", type=click.IntRange(0), default=200, show_default=True, help="The first N rows; 0: all."
)
@click.option("--reference", metavar="R", help="The model that rewards are measured against.  [default: A]")
@click.option(
    "--beta",
    type=click.FloatRange(0, min_open=True),
    default=0.1,
    show_default=True,
    help="Rewards are beta x log-ratio to the reference, as in DPO.",
)
@click.option(
    "--max-length",
    type=click.IntRange(2),
    default=1024,
    show_default=True,
    help="Leave longer rows out, in tokens.",
)
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Ask this too; repeatable.")
@click.option(
    "--sample-count", type=click.IntRange(0), default=3, show_default=True, help="Ask so many of the rows."
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=96, show_default=True, help="Longest answer."
)
@click.option(
    "--worst", type=click.IntRange(0), default=3, show_default=True, help="Show so many of the worst pairs."
)
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [default: runs/compare-NAMES.json]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def compare(ctx: click.Context, models: tuple[str, ...], as_json: bool, **options: object) -> None:
    """Compare one or two models on the same pairs and questions.

    How often each prefers the chosen answer, by its log-probability, by that a token, and by DPO's reward against the
    reference; whether length alone explains it; the worst pairs; answers side by side, greedily. The file has every
    pair's numbers and whole texts.

    \b
    Examples:
      groundup compare Qwen/Qwen2-0.5B-Instruct runs/qwen2-0.5b-ultrafeedback --data pairs.jsonl
      groundup compare runs/demo/sft runs/demo/dpo --worst 10
      groundup compare runs/mine --prompt "What is the capital of France?" --sample-count 0
    """
    if len(models) > 2:
        raise click.UsageError("compare takes one model or two.", ctx)
    from groundup.stages.compare import Asked, compare_models

    compare_models(models, Asked(**options), as_json=as_json)  # type: ignore[arg-type]


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def report(run_folder: Path) -> None:
    """Write a run's report again: one HTML page with curves, and Markdown.

    \b
    Example:
      groundup report runs/demo
    """
    from groundup.report import write_report
    from groundup.store import Run

    console.say(f"Report: {write_report(Run.open(run_folder, create=False))}")
