"""The verbs. Each imports what it needs when it runs, so that help is there at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from groundup import __version__, console, data_verbs, fetch_verb, policy_verbs, shell
from groundup.errors import UserError
from groundup.look_verbs import compare, report
from groundup.stage_verbs import (
    Verb,
    dpo,
    evaluate,
    merge,
    pretrain,
    recipe_options,
    reward,
    run_in_folder,
    sft,
)

if TYPE_CHECKING:
    from groundup.config import Recipe


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


for verb in (
    pretrain,
    sft,
    reward,
    dpo,
    policy_verbs.grpo,
    policy_verbs.ppo,
    merge,
    evaluate,
    data_verbs.data,
    fetch_verb.fetch,
    compare,
    report,
):
    cli.add_command(verb)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `groundup`. Returns the exit code."""
    return shell.run(cli, argv)


def _form_option(verb: Verb) -> Verb:
    return click.option(
        "--form", metavar="FORM", help="A further form of the recipe, as `groundup recipes` lists them."
    )(verb)


@cli.command()
@click.argument("recipe", metavar="R")
@click.option("--only", multiple=True, metavar="STAGE", help="Only this stage; repeatable.")
@click.option("--from", "from_stage", metavar="STAGE", help="Begin with this stage.")
@click.option("--until", metavar="STAGE", help="End with this stage.")
@_form_option
@recipe_options
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
    run_in_folder(loaded, out, list(only), from_stage, until, rehearse)


@cli.command()
@click.option(
    "--settings",
    "kind",
    metavar="KIND",
    help="List every key of a kind of stage, of `recipe`, `data` or `rewards`.",
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


def _check_stage(recipe: Recipe, stage: str | None) -> None:
    if stage is None or stage in recipe.stages:
        return
    close = difflib.get_close_matches(stage, recipe.stages, n=1)
    hint = f"Did you mean `{close[0]}`? " if close else ""
    raise UserError(f"The recipe has no stage `{stage}`.", fix=f"{hint}It has: {', '.join(recipe.stages)}.")
