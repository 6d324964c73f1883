"""The verbs. Each imports what it needs when it runs, so that help is there at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from groundup import __version__, console, data_verbs, fetch_verb, shell
from groundup.errors import UserError
from groundup.look_verbs import compare, report

if TYPE_CHECKING:
    from groundup.config import Recipe

DATA_SUFFIXES = re.compile(r"(\.(jsonl?|txt|md|csv|tsv|parquet|gguf))?(\.(gz|zst|bz2|xz))?$", re.IGNORECASE)
Verb = TypeVar("Verb", bound=Callable[..., Any])


@click.group(
    cls=shell.Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`groundup VERB --help` has examples. R is a recipe's name or file; M a run, a stage's folder, "
    "a model folder, an adapter, a .gguf file or a hub name.",
)
@click.version_option(__version__, prog_name="groundup")
def cli() -> None:
    """From raw text to an aligned, evaluated language model that talks, on the machine you have.

    \b
      groundup run demo          everything once, in some minutes
      groundup chat runs/demo    talk to the result
    """


for verb in (data_verbs.data, fetch_verb.fetch, compare, report):
    cli.add_command(verb)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `groundup`. Returns the exit code."""
    return shell.run(cli, argv)


def _recipe_options(verb: Verb) -> Verb:
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


def _form_option(verb: Verb) -> Verb:
    return click.option(
        "--form", metavar="FORM", help="A further form of the recipe, as `groundup recipes` lists them."
    )(verb)


def _model_option(help_text: str) -> Callable[[Verb], Verb]:
    return click.option("--model", required=True, metavar="M", help=help_text)


def _data_option(help_text: str, required: bool = True) -> Callable[[Verb], Verb]:
    return click.option("--data", required=required, multiple=True, metavar="F", help=help_text)


@cli.command()
@click.argument("recipe", metavar="R")
@click.option("--only", multiple=True, metavar="STAGE", help="Only this stage; repeatable.")
@click.option("--from", "from_stage", metavar="STAGE", help="Begin with this stage.")
@click.option("--until", metavar="STAGE", help="End with this stage.")
@_form_option
@_recipe_options
def run(
    recipe: str,
    form: str | None,
    only: tuple[str, ...],
    from_stage: str | None,
    until: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    rehearse: bool,
) -> None:
    """Run a recipe, or go on where it stopped.

    Finished stages whose settings and inputs are unchanged are reused; an interrupted one goes on from its last
    checkpoint.

    \b
    Examples:
      groundup run demo
      groundup run my.yaml --rehearse
      groundup run my.yaml --set sft.learning_rate=1e-5 --set seed=1 --out runs/lower
      groundup run my.yaml --from dpo
      groundup run tinyllama-guanaco-cpu --form full
    """
    from groundup.config import load_recipe

    loaded = load_recipe(recipe, settings, form)
    for stage in (*only, from_stage, until):
        _check_stage(loaded, stage)
    _run(loaded, out, list(only), from_stage, until, rehearse)


@cli.command()
@click.option(
    "--settings", "kind", metavar="KIND", help="List every key of a kind of stage, of `recipe` or `data`."
)
def recipes(kind: str | None) -> None:
    """List the recipes that come with Groundup, or what may stand in one.

    \b
    Examples:
      groundup recipes
      groundup recipes --settings sft
    """
    from groundup.config import SETTINGS, list_recipes, settings_text

    if kind is not None:
        if kind not in SETTINGS:
            raise click.BadParameter(f"`{kind}` is none of: {', '.join(SETTINGS)}.", param_hint="--settings")
        console.say(settings_text(kind))
        return
    shipped = list_recipes()
    width = max(len(recipe.name) for recipe in shipped)
    for recipe in shipped:
        forms = "".join(f" --form {form}" for form in recipe.forms)
        console.say(f"{recipe.name:<{width}}  {recipe.description}{forms and f' ({forms.strip()})'}")
    console.say("\nRun one:   groundup run NAME\nCopy one:  groundup init NAME [FILE]")


@cli.command()
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def init(name: str, file: Path | None) -> None:
    """Copy a shipped recipe, and its data, to edit it. Never overwrites.

    \b
    Examples:
      groundup init sft-dpo
      groundup init demo work/my.yaml
    """
    from groundup.config import copy_recipe

    target = file or Path(f"{name}.yaml")
    if target.is_dir():
        target = target / f"{name}.yaml"
    for path in copy_recipe(name, target):
        console.say(f"Wrote {path}")
    console.say(f"Edit it, then: groundup run {target} --rehearse")


@cli.command()
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN", help="Print what differs from that run."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(against: Path | None, as_json: bool) -> None:
    """Look at this machine and installation: is everything there?

    \b
    Examples:
      groundup doctor
      groundup doctor --against runs/demo
    """
    from groundup.stages.doctor import doctor as examine

    examine(against, as_json)


@cli.command()
@click.argument("recipe", metavar="R")
@_form_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]")
def plan(recipe: str, form: str | None, settings: tuple[str, ...], out: Path | None) -> None:
    """Show how this machine would run a recipe, without running it.

    \b
    Examples:
      groundup plan demo
      groundup plan my.yaml --set sft.max_length=2048
    """
    from groundup.config import load_recipe
    from groundup.stages.plan import show_plan

    loaded = load_recipe(recipe, settings, form)
    show_plan(loaded, out or Path("runs") / loaded.name)


@cli.command()
@_data_option("Raw text: files, folders or globs of .txt, .md, .jsonl; repeatable.")
@_recipe_options
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
    _run_verb("pretrain", data[0], stages, settings, out, rehearse)


@cli.command()
@_model_option("The model to start from.")
@_data_option("Conversations, .jsonl or .json; repeatable.")
@click.option("--eval-data", multiple=True, metavar="F", help="Held-out rows; otherwise a part of --data.")
@_recipe_options
def sft(
    model: str,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    settings: tuple[str, ...],
    out: Path | None,
    rehearse: bool,
) -> None:
    """Fine-tune a model on conversations (LoRA by default).

    Rows have `messages`, or `prompt` and `completion`, or `instruction` and `output`.

    \b
    Examples:
      groundup sft --model HuggingFaceTB/SmolLM2-135M-Instruct --data mine.jsonl
      groundup sft --model runs/base --data mine.jsonl --set learning_rate=1e-4 --set lora=false
    """
    stage = {"from": model, "data": list(data), "eval_data": list(eval_data) or None}
    _run_verb("sft", data[0], {"sft": stage}, settings, out, rehearse)


@cli.command()
@_model_option("The model to start from, and the reference.")
@_data_option("Preference pairs, .jsonl or .json; repeatable.")
@click.option("--eval-data", multiple=True, metavar="F", help="Held-out rows; otherwise a part of --data.")
@_recipe_options
def dpo(
    model: str,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    settings: tuple[str, ...],
    out: Path | None,
    rehearse: bool,
) -> None:
    """Align a model with preference pairs (DPO, LoRA by default).

    Rows have `prompt`, `chosen` and `rejected`.

    \b
    Examples:
      groundup dpo --model runs/sft-mine --data pairs.jsonl
      groundup dpo --model runs/sft-mine --data pairs.jsonl --set beta=0.05 --set max_steps=200
    """
    stage = {"from": model, "data": list(data), "eval_data": list(eval_data) or None}
    _run_verb("dpo", data[0], {"dpo": stage}, settings, out, rehearse)


@cli.command()
@click.argument("adapter", metavar="A")
@_recipe_options
def merge(adapter: str, settings: tuple[str, ...], out: Path | None, rehearse: bool) -> None:
    """Fold an adapter into its base model: a plain Hugging Face folder.

    \b
    Examples:
      groundup merge runs/sft-mine
      groundup merge runs/demo/sft --out runs/merged
    """
    _run_verb("merge", adapter, {"merge": {"from": adapter}}, settings, out, rehearse)


@cli.command("eval")
@click.argument("model", metavar="M")
@_data_option("Rows to evaluate on; otherwise what the run held out. Repeatable.", required=False)
@_recipe_options
def evaluate(
    model: str, data: tuple[str, ...], settings: tuple[str, ...], out: Path | None, rehearse: bool
) -> None:
    """Compare a model with the ones it came from, on held-out rows.

    \b
    Examples:
      groundup eval runs/demo
      groundup eval HuggingFaceTB/SmolLM2-135M-Instruct --data questions.jsonl
    """
    _run_verb("eval", model, {"eval": {"from": model, "data": list(data) or None}}, settings, out, rehearse)


@cli.command()
@click.argument("model", metavar="M")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest answer."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.7,
    show_default=True,
    help="0: always the likeliest token.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Draw from the likeliest tokens of this share.",
)
@click.option("--seed", type=click.IntRange(0), help="The same seed draws the same answers.")
@click.option("--system", "system_prompt", metavar="TEXT", help="A system prompt.")
@click.option("--verbose", is_flag=True, help="Say how many tokens each answer had, and how fast they came.")
def chat(
    model: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    system_prompt: str | None,
    verbose: bool,
) -> None:
    """Talk to a model; `exit` ends it.

    A model without a chat template continues what you type.

    \b
    Examples:
      groundup chat runs/demo
      groundup chat runs/demo/pretrain --max-new-tokens 100
      groundup chat HuggingFaceTB/SmolLM2-135M-Instruct --system "Answer in one sentence."
    """
    from groundup.infer.chat import chat as talk

    talk(
        model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        system_prompt=system_prompt,
        verbose=verbose,
    )


def _run_verb(
    verb: str, source: str, stages: dict[str, Any], settings: Sequence[str], out: Path | None, rehearse: bool
) -> None:
    """One stage without a recipe goes through the same door as a recipe."""
    from groundup.config import build_recipe

    stem = DATA_SUFFIXES.sub("", Path(source.rstrip("/\\")).name.rpartition(":")[2])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")
    recipe = build_recipe({"name": f"{verb}-{stem or 'run'}", "stages": stages}, settings)
    _run(recipe, out, [], None, None, rehearse)


def _run(
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


def _check_stage(recipe: Recipe, stage: str | None) -> None:
    if stage is None or stage in recipe.stages:
        return
    close = difflib.get_close_matches(stage, recipe.stages, n=1)
    hint = f"Did you mean `{close[0]}`? " if close else ""
    raise UserError(f"The recipe has no stage `{stage}`.", fix=f"{hint}It has: {', '.join(recipe.stages)}.")
