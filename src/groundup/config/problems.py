"""What is wrong with a recipe, where it stands, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from groundup.config import foreign, words
from groundup.config.words import Path
from groundup.errors import UserError

SHOWN = 5
SHORT_LIST = 8
NO, YES = ("no", "off", "n"), ("yes", "on", "y")


@dataclass(frozen=True)
class Problem:
    """One mistake: the place in the recipe, what is wrong, what to do."""

    path: Path
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Source:
    """Where a recipe's values came from: a file's text, and `--set` options."""

    file: FilePath | None = None
    text: str = ""
    overrides: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """`recipe.yaml:7`, or the option that set it; empty for a recipe that was built by a verb."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return self.overrides[path[:length]]
        return f"{self.file}:{self.line(path)}" if self.file else ""

    def line(self, path: Path) -> int:
        """The 1-based line of the deepest part of `path` that the file has."""
        node: Any = self._lines
        line = 0
        for part in path:
            try:
                places = node.lc
                line = (places.key if isinstance(node, dict) else places.item)(part)[0]
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line + 1

    @cached_property
    def _lines(self) -> Any:
        """Read again by the loader that keeps lines; only errors need it, and it is slower."""
        return YAML(typ="rt", pure=True).load(self.text)


def fail(problems: list[Problem], source: Source) -> UserError:
    """One error for all of them, in the order of the file."""
    placed = [(source.where(problem.path), problem) for problem in problems]
    placed.sort(key=lambda item: source.line(item[1].path) if source.file else 0)
    if len(placed) == 1:
        where, only = placed[0]
        return UserError(only.what, where=where, fix=only.fix)
    lines = [f"{len(placed)} things in the recipe are wrong:"]
    for where, problem in placed[:SHOWN]:
        lines.append(" ".join(part for part in (where and f"{where}:", problem.what, problem.fix) if part))
    if len(placed) > SHOWN:
        lines.append(f"… and {len(placed) - SHOWN} more")
    return UserError("\n".join(lines))


def from_validation(error: ValidationError, raw: Any, kinds: Mapping[str, str]) -> list[Problem]:
    """Pydantic's errors in plain words, one a place."""
    found: dict[Path, Problem] = {}
    wrong_type: dict[Path, Any] = {}
    for detail in error.errors(include_url=False):
        path = _place(detail["loc"], raw, detail["type"])
        if detail["type"] == "extra_forbidden":
            found[path] = unknown_key(path, kinds)
        elif detail["type"] == "missing":
            found[path] = _missing(path, kinds)
        elif detail["type"] == "invalid_key" or detail["loc"][-1] == "[key]":
            key = detail["loc"][-1] if detail["type"] == "invalid_key" else detail["loc"][-2]
            found[path] = Problem(path, f"The key {key!r} is not text.", "Put it in quotes.")
        elif detail["type"] == "value_error":
            found[path] = Problem(path, f"{_stage(path)}{detail['ctx']['error']}.")
        elif detail["type"] == "too_short":
            found[path] = Problem(path, f"{_stage(path)}{words.label(path)} is empty.", "Name at least one.")
        else:
            wrong_type[path] = detail["input"]
    for path in wrong_type:
        # Of a union's errors the ones inside the option that was meant say more than "none fits".
        if not any(other != path and other[: len(path)] == path for other in (*found, *wrong_type)):
            found[path] = _wrong_type(path, _at(raw, path), kinds)
    return list(found.values())


def unknown_key(path: Path, kinds: Mapping[str, str]) -> Problem:
    """A key that the settings around it do not have."""
    key, around = str(path[-1]), path[:-1]
    known = known_keys(around, kinds)
    meant = words.nearest(key, known)
    kind = kinds[str(around[1])] if around[:1] == ("stages",) and len(around) == 2 else ""
    fix = foreign.advice(key, kind)
    if not fix:
        fix = (
            f"Did you mean `{meant}`?"
            if meant
            else _elsewhere(path, key, kinds) or _listed(around, known, kinds)
        )
    return Problem(path, f"{_stage(around)}`{key}` is not a setting of {words.owner(around, kinds)}.", fix)


def known_keys(path: Path, kinds: Mapping[str, str]) -> list[str]:
    """The keys that the settings at `path` may have."""
    model = words.model_at(path, kinds)
    return [name for name in words.fields(model) if name != "kind"] if model else []


def _listed(around: Path, known: list[str], kinds: Mapping[str, str]) -> str:
    if len(known) <= SHORT_LIST:
        return f"There are: {', '.join(known)}."
    return f"To see all: groundup recipes --settings {kinds[str(around[1])]}"


def _elsewhere(path: Path, key: str, kinds: Mapping[str, str]) -> str:
    """The right name at the wrong depth is common: `r` beside `lora`, `learning_rate` beside `stages`."""
    if key == "model":
        return "Name the model to start from with `from:`, in the stage."
    for name in known_keys(path[:-1], kinds):
        if key in known_keys((*path[:-1], name), kinds):
            return f"It belongs under `{name}:`."
    owners = [stage for stage in kinds if key in words.fields(words.STAGE_KINDS[kinds[stage]])]
    return f"It belongs in a stage: {', '.join(owners)}." if len(path) == 1 and owners else ""


def _missing(path: Path, kinds: Mapping[str, str]) -> Problem:
    key = str(path[-1])
    model = words.model_at(path[:-1], kinds)
    described = words.fields(model)[key].description if model else None
    meaning = described or words.expected(words.annotation_at(path, kinds))
    what = f"{_stage(path[:-1])}`{key}` is missing in {words.owner(path[:-1], kinds)}."
    return Problem(path, what, f"Add `{key}:` ({meaning}).")


def _wrong_type(path: Path, value: Any, kinds: Mapping[str, str]) -> Problem:
    wanted = words.expected(words.annotation_at(path, kinds))
    what = f"{_stage(path)}{words.label(path)} should be {wanted}, not {words.given(value)}."
    return Problem(path, what, foreign.value_advice(path[-1], value) or _type_hint(value, wanted))


def _type_hint(value: Any, wanted: str) -> str:
    if "number" in wanted and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return f"Write {value} without quotes."
    if wanted.startswith("a whole number") and isinstance(value, float) and value.is_integer():
        return f"Write {int(value)}."
    if isinstance(value, str) and "false" in wanted and value.lower() in NO:
        return "Write false."
    if isinstance(value, str) and "true" in wanted and value.lower() in YES:
        return "Write true."
    if isinstance(value, str) and "`" in wanted:
        meant = words.nearest(value, wanted.split("`")[1::2])
        return f"Did you mean `{meant}`?" if meant else ""
    return "Put it in quotes." if wanted.startswith("text") and isinstance(value, bool | int | float) else ""


def _place(location: tuple[str | int, ...], raw: Any, kind: str) -> Path:
    """The place in the recipe: pydantic also names the union's options that it tried, which no file contains."""
    path: list[str | int] = []
    node = raw
    for index, part in enumerate(location):
        last = index == len(location) - 1
        inside = isinstance(node, dict) and part in node
        if isinstance(node, list) and isinstance(part, int) and not isinstance(part, bool):
            inside = part < len(node)
        is_kind = index == 2 and location[0] == "stages"
        if inside and not is_kind:
            node = node[part]
            path.append(part)
        elif last and kind == "missing":
            path.append(part)
    return tuple(path)


def _at(raw: Any, path: Path) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def _stage(path: Path) -> str:
    return f"Stage {path[1]}: " if path[:1] == ("stages",) and len(path) > 2 else ""
