"""What a stage reads, and the fingerprint that decides whether it has to run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.config.policy import PolicySettings
from groundup.config.schema import (
    ChatSettings,
    CleanSettings,
    DataSettings,
    DpoSettings,
    EvalSettings,
    PretrainSettings,
    Recipe,
    ShardsSettings,
    TokenizerSettings,
)
from groundup.data import Ledger, data_paths, holds_pairs, read_documents
from groundup.data.decontaminate import evaluation_files, read_contamination
from groundup.data.language import check_languages
from groundup.data.prompts import read_prompts
from groundup.errors import UserError
from groundup.hub import resolve_model, resolve_tokenizer
from groundup.infer.load import base_of
from groundup.model import check_answers
from groundup.rollout.rewards import check_rewards
from groundup.rollout.rewards.models import check_model_reward
from groundup.stages.context import Context
from groundup.stages.origin import origin_of
from groundup.stages.rows import read_items, row_kind
from groundup.store import Stage
from groundup.store.files import fingerprint, hash_inputs, read_json
from groundup.tokenizer.template import template_text

FORMAT = 4
"""Raised when a stage computes something else from the same input, so that older results are not reused."""

FIRST_ROWS = 100

_NOT_HASHED: dict[str, Any] = {
    **dict.fromkeys(
        ("logging_steps", "save_steps", "save_total_limit", "workers"), True
    ),  # only how it is done, and what is told on the way
    **dict.fromkeys(
        ("from_", "tokenizer", "model", "reference"), True
    ),  # their content is hashed, however they are spelled
    **{key: {"path", "config"} for key in ("data", "eval_data")},
    "mix": {"__all__": {"path", "config"}},
}
"""Settings that do not change the result by themselves."""

_DRAWS = ("pretrain", "sft", "reward", "dpo", "grpo", "ppo")
"""Kinds of stages that draw random numbers: only they depend on the seed, and a clean stage that mixes."""

_CHATS = ("sft", "reward", "dpo", "grpo", "ppo", "eval")
"""Kinds of stages that render conversations."""


def references(settings: Any) -> list[str]:
    """The names of stages, folders or hub models that the settings name as input."""
    names = [getattr(settings, "from_", None)]  # a clean stage reads data alone
    if isinstance(settings, ShardsSettings):
        names.append(settings.tokenizer)
    if isinstance(settings, TokenizerSettings):
        names += settings.compare_with
    if isinstance(settings, PretrainSettings):
        names.append(settings.model)
    if isinstance(settings, DpoSettings):
        names.append(settings.reference)
    if isinstance(settings, PolicySettings):
        names += [reward.model for reward in settings.rewards]
    return [name for name in names if name]


def stages_before(recipe: Recipe, name: str) -> list[str]:
    """All stages that `name` reads from, directly or not, earliest first."""
    order: list[str] = []
    for reference in references(recipe.stages[name]):
        if reference in recipe.stages and reference not in order:
            order += [n for n in [*stages_before(recipe, reference), reference] if n not in order]
    return order


def check_inputs(recipe: Recipe, chosen: Sequence[str]) -> None:
    """Before anything is made: every model and file that is named exists, and its first rows can be read.

    Raises UserError. A hub's model is downloaded here, not in the middle of the night.
    """
    for name in chosen:
        settings = recipe.stages[name]
        source = recipe.stages.get(getattr(settings, "from_", ""))
        if settings.kind == "merge" and getattr(source, "lora", None) is False:
            raise UserError(
                f"stage {name} has nothing to merge: stage {settings.from_} trains the whole model (lora: false)",
                where=f"stages.{name}.from",
                fix=f"leave stage {name} out, and name {settings.from_} in its place",
            )
        for reference in references(settings):
            if reference in recipe.stages:
                continue
            with located(f"stage {name}"):
                if isinstance(settings, (ShardsSettings, TokenizerSettings)):
                    resolve_tokenizer(reference)
                else:
                    named = resolve_model(reference)
                    base_of(named)
                    if settings.kind != "merge" and reference in _answering(settings):
                        check_answers(named.path)
        if isinstance(settings, TokenizerSettings):
            template_text(settings.chat_template)
        for data in data_of(settings):
            _read_first_rows(data, settings)
        if isinstance(settings, PolicySettings):
            check_rewards(settings.rewards)
            for reward in settings.rewards:
                if reward.model is not None and reward.model not in recipe.stages:
                    with located(f"stages.{name}.rewards"):
                        check_model_reward(reward, resolve_model(reward.model))
        if isinstance(settings, CleanSettings):
            check_languages(settings.language, f"stages.{name}.language")
            read_contamination(settings.decontaminate)


@contextmanager
def located(where: str) -> Iterator[None]:
    """A problem inside that names no place is at this one."""
    try:
        yield
    except UserError as error:
        error.where = error.where or where
        raise


def _answering(settings: Any) -> list[Any]:
    """What the settings name as a model that answers."""
    return [getattr(settings, name, None) for name in ("from_", "model", "reference")]


def data_of(settings: Any) -> list[DataSettings]:
    """All data that the settings name."""
    if isinstance(settings, CleanSettings):
        return settings.sources
    found = [getattr(settings, key, None) for key in ("data", "eval_data")]
    return [data for data in found if isinstance(data, DataSettings)]


def _read_first_rows(data: DataSettings, settings: Any) -> None:
    few = data.model_copy(
        update={"subset": min(data.subset or FIRST_ROWS, FIRST_ROWS), "max_bad_rows": 0.999}
    )
    ledger = Ledger()
    if settings.kind == "clean":
        for _ in read_documents(few, ledger):
            pass
    elif isinstance(settings, PolicySettings):
        read_prompts(few, ledger, continued=bool(settings.prompt_tokens))
    elif settings.kind == "eval" and holds_pairs(few):
        read_items(few, ledger, "pairs")
    else:
        read_items(few, ledger, row_kind(settings))


def stage_fingerprint(context: Context) -> str:
    """Hash of everything that the stage's result depends on: its settings, the seed, and the content of its inputs."""
    settings = context.settings
    inputs = [_content(context, name) for name in references(settings)]
    chat = context.recipe.chat
    if isinstance(settings, TokenizerSettings):
        inputs.append(fingerprint(template_text(settings.chat_template)))
    if isinstance(settings, EvalSettings) and (origin := origin_of(context)):
        # An evaluation reads every model of the chain, and the held-out rows of each.
        chain = [*stages_before(origin.recipe, origin.name), origin.name]
        inputs += [_outputs_hash(origin.run.stage(name)) for name in chain]
        inputs.append(fingerprint(_chat_content(origin.recipe.chat)))
    data: dict[str, Any] = {
        key: hash_inputs(data_paths(value))
        for key in ("data", "eval_data")
        if isinstance(value := getattr(settings, key, None), DataSettings)
    }
    draws = settings.kind in _DRAWS
    if isinstance(settings, PolicySettings):
        written = [reward.file.expanduser() for reward in settings.rewards if reward.file is not None]
        data["rewards"] = hash_inputs(written)
    if isinstance(settings, CleanSettings):
        data["mix"] = [hash_inputs(data_paths(source)) for source in settings.mix]
        data["decontaminate"] = [hash_inputs(evaluation_files(name)) for name in settings.decontaminate]
        draws = bool(settings.mix)
    return fingerprint(
        {
            "format": FORMAT,
            "settings": settings.model_dump(mode="json", exclude=_NOT_HASHED),
            "seed": context.recipe.seed if draws else None,
            "chat": _chat_content(chat) if settings.kind in _CHATS else None,
            "inputs": inputs,
            "data": data,
            "rehearse": context.rehearse,
        }
    )


def _content(context: Context, name: str) -> str:
    if name in context.recipe.stages:
        return _outputs_hash(context.run.stage(name))
    if isinstance(context.settings, (ShardsSettings, TokenizerSettings)):
        return hash_inputs([resolve_tokenizer(name)])
    base, adapters = base_of(resolve_model(name))
    # An adapter names the folder of its base, so the model's place matters too.
    return fingerprint([str(base.path), hash_inputs([base.path, *adapters])])


def _chat_content(chat: ChatSettings) -> dict[str, Any]:
    """The settings, with what the template's file says in place of where it lies."""
    template = Path(chat.chat_template).expanduser() if chat.chat_template else None
    return chat.model_dump(mode="json") | ({"chat_template": hash_inputs([template])} if template else {})


def _outputs_hash(stage: Stage) -> str:
    """Hash of what the stage made, as its manifest has it; what it said of times and rates does not count."""
    files = read_json(stage.manifest)["files"]
    return fingerprint(
        [
            (f["path"], f["xxh3"])
            for f in files
            if f["path"].startswith((stage.final.name + "/", stage.data.name + "/"))
        ]
    )
