"""The verbs that run one kind of stage without a recipe. Each imports what it needs when it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from groundup.config import Recipe

DATA_SUFFIXES = re.compile(r"(\.(jsonl?|txt|md|csv|tsv|parquet|gguf))?(\.(gz|zst|bz2|xz))?$", re.IGNORECASE)
SOURCES = "a file, folder, glob or hub name"
"""What may stand behind --data: for help texts."""
Verb = TypeVar("Verb", bound=Callable[..., Any])


def recipe_options(verb: Verb) -> Verb:
    """What every verb that trains or evaluates takes."""
    for option in (
        click.option(
            "--rehearse",
            is_flag=True,
            help="Two steps of everything in a throw-away folder: what would fail?",
        ),
        click.option(
            "--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]"
        ),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable."
        ),
    ):
        verb = option(verb)
    return verb


def data_option(help_text: str, required: bool = True) -> Callable[[Verb], Verb]:
    return click.option("--data", required=required, multiple=True, metavar="F", help=help_text)


def rows_options(rows: str, model: str = "The model to start from.") -> Callable[[Verb], Verb]:
    """What every verb takes that trains a model on rows; both are help texts."""

    def add(verb: Verb) -> Verb:
        help_text = "Held-out rows; otherwise a part of --data. Repeatable."
        verb = click.option("--eval-data", multiple=True, metavar="F", help=help_text)(verb)
        return click.option("--model", required=True, metavar="M", help=model)(data_option(rows)(verb))

    return add


@click.command()
@data_option(f"Raw text: {SOURCES}; repeatable.")
@recipe_options
def pretrain(data: tuple[str, ...], settings: tuple[str, ...], out: Path | None, rehearse: bool) -> None:
    """Train a small base model from scratch on raw text.

    The text is cleaned and deduplicated first, a tokenizer trained on it, and a part held out to measure on.

    \b
    Examples:
      groundup pretrain --data books/ --set max_minutes=10
      groundup pretrain --data notes.jsonl --set architecture.hidden_size=384 --set vocab_size=4096
    """
    stages = {
        "clean": {"data": list(data)},
        "tokenizer": {"from": "clean"},
        "shards": {"from": "clean", "tokenizer": "tokenizer"},
        "pretrain": {"from": "shards"},
    }
    run_verb("pretrain", data[0], stages, settings, out, rehearse)


@click.command()
@rows_options(f"Conversations: {SOURCES}; repeatable.")
@recipe_options
def sft(**options: Any) -> None:
    """Fine-tune a model on conversations (LoRA by default).

    Rows have `messages`, or `prompt` and `completion`, or `instruction` and `output`.

    \b
    Examples:
      groundup sft --model HuggingFaceTB/SmolLM2-135M-Instruct --data mine.jsonl
      groundup sft --model runs/base --data mine.jsonl --set learning_rate=1e-4 --set lora=false
    """
    train_verb("sft", **options)


@click.command()
@rows_options(f"Preference pairs: {SOURCES}; repeatable.")
@recipe_options
def reward(**options: Any) -> None:
    """Train a reward model from preference pairs (LoRA by default).

    Rows have `prompt`, `chosen` and `rejected`, and perhaps a `margin`. The result gives a text one number;
    transformers opens it as a sequence classifier.

    \b
    Examples:
      groundup reward --model runs/sft-mine --data pairs.jsonl
      groundup reward --model runs/sft-mine --data pairs.jsonl --set lora=false
    """
    train_verb("reward", **options)


@click.command()
@rows_options(f"Preference pairs: {SOURCES}; repeatable.")
@click.option(
    "--loss",
    metavar="NAME",
    help="sigmoid, hinge, ipo, robust, sigmoid_norm, simpo, orpo or kto.  [default: sigmoid]",
)
@click.option(
    "--reference", metavar="M", help="The model to stay close to.  [default: the one to start from]"
)
@recipe_options
def dpo(**options: Any) -> None:
    """Align a model with preference pairs (DPO and its relatives, LoRA by default).

    Rows have `prompt`, `chosen` and `rejected`; with --loss kto `prompt`, `completion` and `label`.

    \b
    Examples:
      groundup dpo --model runs/sft-mine --data pairs.jsonl
      groundup dpo --model runs/sft-mine --data pairs.jsonl --loss ipo --set beta=0.05
    """
    train_verb("dpo", **options)


@click.command()
@click.argument("adapter", metavar="A")
@recipe_options
def merge(adapter: str, settings: tuple[str, ...], out: Path | None, rehearse: bool) -> None:
    """Fold an adapter into its base model: a plain Hugging Face folder.

    \b
    Examples:
      groundup merge runs/sft-mine
      groundup merge runs/demo/sft --out runs/merged
    """
    run_verb("merge", adapter, {"merge": {"from": adapter}}, settings, out, rehearse)


@click.command("eval")
@click.argument("model", metavar="M")
@data_option(f"Rows to evaluate on: {SOURCES}; otherwise what the run held out. Repeatable.", required=False)
@recipe_options
def evaluate(
    model: str, data: tuple[str, ...], settings: tuple[str, ...], out: Path | None, rehearse: bool
) -> None:
    """Compare a model with the ones it came from, on held-out rows.

    \b
    Examples:
      groundup eval runs/demo
      groundup eval HuggingFaceTB/SmolLM2-135M-Instruct --data questions.jsonl
    """
    run_verb("eval", model, {"eval": {"from": model, "data": list(data) or None}}, settings, out, rehearse)


def train_verb(
    kind: str,
    model: str,
    data: Sequence[str],
    eval_data: Sequence[str],
    settings: Sequence[str],
    out: Path | None,
    rehearse: bool,
    **more: Any,
) -> None:
    """One stage that trains a model on rows. more: settings by the recipe's names; None: not given."""
    stage = {"from": model, "data": list(data), "eval_data": list(eval_data) or None, **more}
    stage = {name: value for name, value in stage.items() if value is not None}
    run_verb(kind, data[0], {kind: stage}, settings, out, rehearse)


def run_verb(
    verb: str, source: str, stages: dict[str, Any], settings: Sequence[str], out: Path | None, rehearse: bool
) -> None:
    """One stage without a recipe goes through the same door as a recipe."""
    from groundup.config import build_recipe

    stem = DATA_SUFFIXES.sub("", Path(source.rstrip("/\\")).name.rpartition(":")[2])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")
    recipe = build_recipe({"name": f"{verb}-{stem or 'run'}", "stages": stages}, settings)
    run_in_folder(recipe, out, [], None, None, rehearse)


def run_in_folder(
    recipe: Recipe,
    out: Path | None,
    only: list[str],
    from_stage: str | None,
    until: str | None,
    rehearse: bool,
) -> None:
    from groundup.stages.run import run_recipe

    folder = out or Path("runs") / recipe.name
    run_recipe(recipe, folder, only=only, from_stage=from_stage, until=until, rehearse=rehearse)
