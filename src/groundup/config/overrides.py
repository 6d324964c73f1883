"""`--set a.b=c`: one setting of a recipe, changed from the command line or by a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundup.config import foreign, problems, words
from groundup.config.schema import STAGE_KINDS, Recipe
from groundup.config.words import Path
from groundup.errors import UserError

SPECIAL = "*&!%@`"  # YAML gives these a meaning at the start; on a command line they are just text


def apply(raw: dict[str, Any], text: str, kinds: Mapping[str, str]) -> Path:
    """Change `raw` as `--set text` says and return the changed place. Raises UserError."""
    key, equals, value_text = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(
            f"--set {text}: not of the form name=value.", fix="For example --set sft.learning_rate=1e-5"
        )
    return put(raw, key, value_of(value_text, f"--set {text}"), kinds, f"--set {key}")


def put(raw: dict[str, Any], key: str, value: Any, kinds: Mapping[str, str], said: str) -> Path:
    """Set one value in `raw` and return the changed place. Raises UserError, which begins with `said`.

    The first word of the key is a key of the recipe, or a stage, or a setting that only one stage has.
    """
    path = _full_path(key, kinds, said)
    _check(path, key, kinds, said)
    node: dict[Any, Any] = raw
    for part in path[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    is_data = isinstance(value, str | list) and words.model_at(path, kinds) is words.DataSettings
    node[path[-1]] = {"path": value} if is_data else value
    return path


def _full_path(key: str, kinds: Mapping[str, str], said: str) -> Path:
    parts = tuple(key.split("."))
    if parts[0] in words.fields(Recipe):
        return parts
    # A stage's own name may have dots in it.
    for stage in sorted(kinds, key=len, reverse=True):
        if key == stage or key.startswith(f"{stage}."):
            rest = key[len(stage) + 1 :]
            return ("stages", stage, *(rest.split(".") if rest else ()))
    owners = [stage for stage, kind in kinds.items() if parts[0] in words.fields(STAGE_KINDS[kind])]
    if len(owners) > 1:
        raise UserError(
            f"{said}: more than one stage has `{parts[0]}`.",
            fix=f"Say which: {', '.join(f'{stage}.{key}' for stage in owners)}",
        )
    return ("stages", owners[0], *parts) if owners else parts


def _check(path: Path, key: str, kinds: Mapping[str, str], said: str) -> None:
    if path[0] == "forms":
        raise UserError(f"{said}: a form is chosen, not set.", fix="Choose it with --form NAME.")
    if path[0] == "stages" and (len(path) < 2 or path[1] not in kinds):
        meant = words.nearest(str(path[1]), kinds) if len(path) > 1 else None
        hint = f"Did you mean `{meant}`? " if meant else ""
        raise UserError(f"{said}: there is no such stage.", fix=f"{hint}There are: {', '.join(kinds)}.")
    if path[0] == "stages" and len(path) == 2:
        raise UserError(f"{said}: a setting of the stage is missing.", fix=f"For example {key}.max_steps=100")
    if path[-1] == "kind" and len(path) == 3:
        raise UserError(f"{said}: what kind a stage is cannot be changed.", fix="Edit the recipe.")
    for length in range(1, len(path) + 1):
        if words.annotation_at(path[:length], kinds) is None:
            raise UserError(
                f"{said}: unknown.", why=_why(path[:length], kinds), fix=_fix(path[:length], kinds)
            )


def _why(path: Path, kinds: Mapping[str, str]) -> str:
    if len(path) == 1:
        return f"`{path[0]}` is no setting of the recipe, no stage, and no setting of a stage."
    if not words.is_mapping(path[:-1], kinds):
        return f"{words.label(path[:-1])} has no settings of its own."
    return problems.unknown_key(path, kinds).what


def _fix(path: Path, kinds: Mapping[str, str]) -> str:
    if len(path) > 1:
        return problems.unknown_key(path, kinds).fix if words.is_mapping(path[:-1], kinds) else ""
    if said := foreign.advice(str(path[0])):
        return said
    known = [*problems.known_keys((), kinds), *kinds]
    known += [key for stage in kinds for key in problems.known_keys(("stages", stage), kinds)]
    meant = words.nearest(str(path[0]), known)
    return f"Did you mean `{meant}`?" if meant else f"Stages are: {', '.join(kinds)}."


def value_of(value: str, option: str) -> Any:
    """A value as YAML reads it, and text where YAML would take its first character for something else.

    option: how it was given, for the error.
    """
    if value.startswith(tuple(SPECIAL)):
        return value
    try:
        return YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError) as error:
        raise UserError(
            f"{option}: the value is not YAML.",
            fix="Put it in two kinds of quotes: --set 'name=\"value\"'",
        ) from error
