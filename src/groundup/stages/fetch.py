"""`groundup fetch`: all that a recipe needs from hubs, brought here before a machine goes offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundup import console
from groundup.config.schema import CleanSettings, DataSettings, Recipe, ShardsSettings, TokenizerSettings
from groundup.data import data_paths
from groundup.data.decontaminate import evaluation_files
from groundup.data.files import BUILTIN, choose_of_hub
from groundup.hub import cache_beside, find_dataset, resolve_model, resolve_tokenizer
from groundup.hub.cache import size_text
from groundup.hub.datafiles import wanted_data
from groundup.hub.download import Plan, bring, plan_download
from groundup.hub.errors import WORDS, no_place
from groundup.hub.models import adapter_base, is_hub_name, wanted_adapter, wanted_model
from groundup.hub.tokenizers import wanted_tokenizer
from groundup.stages.inputs import data_of, located, references
from groundup.store import Run


def fetch_recipe(recipe: Recipe, out: Path, dry_run: bool, called: str) -> None:
    """List models, tokenizers and data that the recipe names on hubs, with sizes, and download what is not here.

    out: the run's folder, which takes what the usual cache has no place for. called: the recipe, as people wrote it.
    Raises UserError, before anything large is downloaded, where one of them cannot be had or there is too little room.
    """
    with cache_beside(Run(out.expanduser()).downloads):
        plans = plan_recipe(recipe, list(recipe.stages))
        if not plans:
            console.say(f"{recipe.name} needs nothing from a hub.")
            return
        missing = _say_list(recipe, plans)
        check_room(plans)
        if dry_run:
            return
        for plan in plans:
            bring(plan)
    done = "Everything is here" if missing else "Everything was here already"
    console.say(f"{done}. Without a network: HF_HUB_OFFLINE=1 groundup run {called}")


def plan_recipe(recipe: Recipe, chosen: Sequence[str]) -> list[Plan]:
    """What the chosen stages read from hubs, in their order, each once.

    What they name here is looked for too. Raises UserError where something cannot be had.
    """
    plans = [plan for name in chosen for plan in _plan_stage(recipe, name)]
    return list({(plan.wanted, plan.cache): plan for plan in plans}.values())


def _plan_stage(recipe: Recipe, name: str) -> Iterator[Plan]:
    settings = recipe.stages[name]
    with located(f"stage {name}"):
        for reference in references(settings):
            if reference not in recipe.stages:
                only_tokenizer = isinstance(settings, (ShardsSettings, TokenizerSettings))
                yield from _plan_model(reference, only_tokenizer)
        for data in data_of(settings):
            yield from _plan_data(data)
        if isinstance(settings, CleanSettings):
            for evaluation in settings.decontaminate:
                if is_hub_name(evaluation):
                    yield plan_download(wanted_data(evaluation))
                else:
                    evaluation_files(evaluation)


def _plan_model(name: str, only_tokenizer: bool, relative_to: Path | None = None) -> Iterator[Plan]:
    """A model, and below an adapter its base."""
    if not is_hub_name(name, relative_to):
        if only_tokenizer:
            resolve_tokenizer(name, relative_to)
            return
        source = resolve_model(name, relative_to=relative_to)
        if source.kind == "adapter":
            yield from _plan_model(source.base or "", False, source.path)
        return
    plan = plan_download(wanted_tokenizer(name) if only_tokenizer else wanted_model(name))
    yield plan
    if any(file.name == "adapter_config.json" for file in plan.files):
        folder = bring(plan_download(wanted_adapter(name)))
        yield from _plan_model(adapter_base(folder), only_tokenizer, folder)


def _plan_data(data: DataSettings) -> Iterator[Plan]:
    for name in data.path:
        dataset = None if name.startswith(BUILTIN) else find_dataset(name)
        if dataset is None:
            data_paths(data.model_copy(update={"path": [name]}))
        else:
            chosen = choose_of_hub(dataset, data).files
            yield plan_download(dataset.wanted([path.as_posix() for path in chosen]))


def _say_list(recipe: Recipe, plans: list[Plan]) -> int:
    """A line each, and the sum. Returns the bytes to download."""
    console.say(f"What {recipe.name} needs from hubs:")
    width = max(len(plan.wanted.name) for plan in plans)
    for plan in plans:
        whole = sum(file.size_bytes for file in plan.files)
        count = f"{len(plan.files)} file{'s'[: len(plan.files) != 1]}"
        missing = plan.missing_bytes
        here = f"{size_text(missing)} to download" if plan.flaws else "here"
        what = WORDS[plan.wanted.kind]
        console.say(f"  {what:<8}  {plan.wanted.name:<{width}}  {count:>8}  {size_text(whole):>9}  {here}")
    missing = sum(size for size in _missing_by_file(plans).values())
    if missing:
        console.say(f"Together {size_text(missing)} to download, into {', '.join(sorted(_places(plans)))}.")
    return missing


def check_room(plans: list[Plan]) -> None:
    """Raises UserError where each of them has room, but not all together."""
    for cache in {plan.cache for plan in plans if plan.flaws}:
        here = [plan for plan in plans if plan.cache == cache]
        needed = sum(_missing_by_file(here).values())
        existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
        if needed > (free := shutil.disk_usage(existing).free):
            raise no_place("all of it", size_text(needed), {cache: f"{size_text(free)} are free"}, room=True)


def _missing_by_file(plans: list[Plan]) -> dict[Path, int]:
    """Bytes to download of each file; a model's tokenizer may be listed by itself too."""
    return {
        place.pointer: place.file.size_bytes - place.part_bytes for plan in plans for place in plan.missing
    }


def _places(plans: list[Plan]) -> set[str]:
    return {str(plan.cache) for plan in plans if plan.flaws}
