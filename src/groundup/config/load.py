"""A recipe's text, or a verb's options, into a checked and frozen `Recipe`. Nothing is guessed silently."""

from __future__ import annotations

import copy
import glob
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from groundup.config import foreign, forms, problems, references, words
from groundup.config import overrides as settings
from groundup.config.problems import Problem, Source
from groundup.config.recipes import find_recipe
from groundup.config.schema import STAGE_KINDS, Recipe
from groundup.errors import UserError

STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TAKEN_NAMES = (
    "models",
    "downloads",
    "reference_logps",
    "report_files",
)  # folders that a run has beside its stages
DATA_KEYS = ("data", "eval_data")
REMOTE = re.compile(r"(builtin|package):|[a-z0-9]{2,}://")


def load_recipe(
    name_or_path: str | FilePath, overrides: Sequence[str] = (), form: str | None = None
) -> Recipe:
    """A shipped recipe by name, or a YAML 1.2 file. `overrides`: `--set` options such as "sft.learning_rate=1e-5".

    `form`: one of the recipe's `forms`, whose settings are put in before `overrides`.

    Paths in it are relative to the current folder or, where nothing is there, to the recipe's own folder.
    Raises UserError with file and line of every mistake.
    """
    file = find_recipe(str(name_or_path))
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text.",
            why=str(error),
            fix="Save it as UTF-8. A recipe is a YAML text file.",
        ) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read.", why=error.strerror or str(error)) from error
    mapping = _parse(text, file)
    foreign.refuse(mapping, str(file))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-") or "recipe"
    return _build({"name": name, **mapping}, overrides, Source(file, text), form)


def build_recipe(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from what a verb was given. Raises UserError like `load_recipe`, without file and line."""
    return _build(dict(mapping), overrides, Source())


def recipe_to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every default written out; loading it gives an equal recipe."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # annotated as None
    yaml.width = 10_000
    yaml.allow_unicode = True
    text = io.StringIO()
    yaml.dump(recipe.model_dump(mode="json", by_alias=True), text)
    return text.getvalue()


def _parse(text: str, file: FilePath) -> dict[str, Any]:
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise _broken(error, where) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not YAML.", why=str(error)) from error
    if raw is None:
        raise UserError(
            f"{file} is empty.", fix="Begin with a shipped one: groundup recipes; groundup init NAME."
        )
    if not isinstance(raw, dict):
        raise UserError(
            f"A recipe is settings (`name: value`), not {words.given(raw)}.",
            where=f"{file}:1",
            fix="Its last key is `stages:`, with the stages by name below it.",
        )
    return raw


def _broken(error: MarkedYAMLError, where: str) -> UserError:
    if isinstance(error, DuplicateKeyError):
        key = re.search(r'duplicate key "([^"]*)"', str(error.problem))
        return UserError(
            f"`{key.group(1) if key else ''}` is given twice.", where=where, fix="Keep one of the two."
        )
    why = " ".join(str(part) for part in (error.problem, error.context) if part)
    fix = "Indent with spaces; put text that has `: `, `#` or brackets in quotes."
    if "'\\t'" in why:
        fix = "YAML is indented with spaces: replace the tab."
    return UserError(
        "The recipe is not YAML from this line on, or from the one above.", where=where, why=why, fix=fix
    )


def _build(
    raw: dict[str, Any], given_overrides: Sequence[str], source: Source, form: str | None = None
) -> Recipe:
    raw = copy.deepcopy(raw)
    found = _name_kinds(raw)
    bad_stages = {problem.path[1] for problem in found if len(problem.path) > 1}
    if not isinstance(raw.get("stages"), dict):
        kinds: dict[str, str] = {}
    else:
        raw["stages"] = {name: stage for name, stage in raw["stages"].items() if name not in bad_stages}
        kinds = {name: stage["kind"] for name, stage in raw["stages"].items()}
    for stage in _stages(raw):
        for key in DATA_KEYS:
            if isinstance(stage.get(key), str | list):
                stage[key] = {"path": stage[key]}
        if "rewards" in stage:
            stage["rewards"] = _reward_list(stage["rewards"])
    forms.choose(raw, form, kinds, source)
    for text in given_overrides:
        source.overrides[settings.apply(raw, text, kinds)] = f"--set {text}"
    if source.file is not None:
        _find_paths(raw, source.file.parent)
    found += references.check(raw, kinds, bad_stages)
    recipe = None
    try:
        recipe = Recipe.model_validate(raw) if kinds or not bad_stages else None
    except ValidationError as error:
        found += problems.from_validation(error, raw, kinds)
    if found or recipe is None:
        raise problems.fail(found, source)
    return recipe


def _reward_list(rewards: Any) -> Any:
    """One reward may stand for a list of one, and a function's name for its settings."""
    if isinstance(rewards, str | dict):
        rewards = [rewards]
    if not isinstance(rewards, list):
        return rewards
    return [{"function": reward} if isinstance(reward, str) else reward for reward in rewards]


def _name_kinds(raw: dict[str, Any]) -> list[Problem]:
    """Give every stage its `kind`, by default its name, and say which stages have none."""
    found: list[Problem] = []
    stages = raw.get("stages")
    if not isinstance(stages, dict):
        return []
    for name, stage in list(stages.items()):
        path = ("stages", name)
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name) or name in TAKEN_NAMES:
            fix = "Use letters, digits, `.`, `_` and `-`: it becomes a folder's name."
            found.append(Problem(path, f"`{name}` cannot be a stage's name.", fix))
            continue
        stage = {} if stage is None else stage
        if not isinstance(stage, dict):
            found.append(Problem(path, f"Stage {name} should be settings, not {words.given(stage)}."))
            continue
        kind = stage.get("kind", name)
        if kind not in list(STAGE_KINDS):
            meant = words.nearest(str(kind), STAGE_KINDS)
            what = f"`{kind}` is not a kind of stage." if "kind" in stage else f"Stage {name} needs a `kind`."
            hint = f"Did you mean `{meant}`? " if meant else ""
            place = (*path, "kind") if "kind" in stage else path
            found.append(Problem(place, what, f"{hint}There are: {', '.join(STAGE_KINDS)}."))
            continue
        stages[name] = {**stage, "kind": kind}
    return found


def _stages(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    stages = raw.get("stages")
    yield from stages.values() if isinstance(stages, dict) else ()


def _find_paths(raw: dict[str, Any], folder: FilePath) -> None:
    """Point paths that exist beside the recipe, but not here, to where they are."""
    names = set(raw["stages"]) if isinstance(raw.get("stages"), dict) else set()
    for stage in _stages(raw):
        for key in references.KEYS:
            if isinstance(stage.get(key), str) and stage[key] not in names:
                stage[key] = _found(stage[key], folder)
        for key in DATA_KEYS:
            data = stage.get(key)
            if isinstance(data, dict):
                paths = data.get("path")
                if isinstance(paths, str):
                    data["path"] = _found(paths, folder)
                elif isinstance(paths, list):
                    data["path"] = [_found(path, folder) if isinstance(path, str) else path for path in paths]
        rewards = stage.get("rewards")
        for reward in rewards if isinstance(rewards, list) else []:
            _find_reward_paths(reward, names, folder)
    chat = raw.get("chat")
    if isinstance(chat, dict) and isinstance(chat.get("chat_template"), str):
        chat["chat_template"] = _found(chat["chat_template"], folder)


def _find_reward_paths(reward: Any, stages: Collection[str], folder: FilePath) -> None:
    """FILE.py:NAME, and the model or schema of a shipped reward."""
    if not isinstance(reward, dict):
        return
    file, colon, name = str(reward.get("function", "")).rpartition(":")
    if colon and file.endswith(".py"):
        reward["function"] = f"{_found(file, folder)}:{name}"
    for key in ("model", "schema"):
        if isinstance(reward.get(key), str) and reward[key] not in stages:
            reward[key] = _found(reward[key], folder)


def _found(text: str, folder: FilePath) -> str:
    if not text or REMOTE.match(text):
        return text
    if text.startswith("~"):
        return str(FilePath(text).expanduser())
    if _exists(text) or not _exists(str(folder / text)):
        return text
    return str(folder / text)


def _exists(text: str) -> bool:
    return FilePath(text).exists() or (glob.has_magic(text) and any(glob.iglob(text, recursive=True)))
