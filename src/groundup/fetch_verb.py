"""The verb `groundup fetch`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe", metavar="R")
@click.option("--dry-run", is_flag=True, help="Only list what it needs, and how large that is.")
@click.option("--form", metavar="FORM", help="A further form of the recipe.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]")
def fetch(recipe: str, dry_run: bool, form: str | None, settings: tuple[str, ...], out: Path | None) -> None:
    """Download all that a recipe needs, ahead of time.

    Models, tokenizers and data sets go to Hugging Face's cache; afterwards the recipe runs with HF_HUB_OFFLINE=1. A
    download that was stopped goes on where it was.

    \b
    Examples:
      groundup fetch sft-dpo --dry-run
      groundup fetch qwen3-4b-4xh100 --form full
      groundup fetch my.yaml --set sft.data=trl-lib/Capybara
    """
    from groundup.config import load_recipe
    from groundup.stages.fetch import fetch_recipe

    loaded = load_recipe(recipe, settings, form)
    called = f"{recipe} --form {form}" if form else recipe
    fetch_recipe(loaded, out or Path("runs") / loaded.name, dry_run, called)
