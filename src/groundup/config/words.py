"""The schema in plain words: what may stand at a place of a recipe, and what stood there instead."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from groundup.config.rewards import RewardSettings
from groundup.config.schema import STAGE_KINDS, DataSettings, Recipe

Path = tuple[str | int, ...]  # ("stages", "sft", "lora", "r"): the place of a value in a recipe

SETTINGS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "data": DataSettings,
    "rewards": RewardSettings,
    **STAGE_KINDS,
}
NUMBERS = {int: "a whole number", float: "a number"}
OTHERS = {bool: "true or false", str: "text", type(None): "null", Any: "anything"}


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that a recipe uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def annotation_at(path: Path, kinds: Mapping[str, str]) -> Any:
    """The type that belongs at `path`, or None where the schema has no such place. `kinds`: stage name to kind."""
    if path[:1] == ("stages",) and len(path) > 1:
        kind = kinds.get(str(path[1]))
        return _descend(STAGE_KINDS[kind], path[2:]) if kind in STAGE_KINDS else None
    return _descend(Recipe, path)


def model_at(path: Path, kinds: Mapping[str, str]) -> type[BaseModel] | None:
    """The settings class at `path`, if one may stand there."""
    for option in _options(annotation_at(path, kinds)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def is_mapping(path: Path, kinds: Mapping[str, str]) -> bool:
    """Whether named values may stand at `path`: settings, or free names as in `columns`."""
    options = _options(annotation_at(path, kinds))
    return model_at(path, kinds) is not None or any(get_origin(option) is dict for option in options)


def expected(annotation: Any) -> str:
    """What may stand there: "a number above 0", "`cosine` or `linear`", "text or null"."""
    metadata: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        metadata = tuple(rest)
    if get_origin(annotation) in (Union, types.UnionType):
        return _either([expected(option) for option in get_args(annotation)])
    if get_origin(annotation) is Literal:
        return _either([f"`{_yaml_word(value)}`" for value in get_args(annotation)])
    if get_origin(annotation) is list:
        (entry,) = get_args(annotation)
        return f"a list of {'settings (`- name: value`)' if _is_settings(entry) else expected(entry)}"
    if annotation is DataSettings:
        return "a path, a list of paths, or settings with `path`"
    if get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "settings (`name: value`, one a line)"
    if annotation in NUMBERS:
        return NUMBERS[annotation] + _bounds(metadata)
    pattern = any(getattr(item, "pattern", None) for item in metadata)
    return "letters, digits, `.`, `_` and `-` only" if pattern else OTHERS[annotation]


def given(value: Any) -> str:
    """What stood there: `the text "2e-4x"`."""
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return _yaml_word(value)
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:57] + "..."}"'
    if isinstance(value, list):
        return "a list"
    return "settings" if isinstance(value, dict) else f"a {type(value).__name__}"


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `words` that was most likely meant."""
    close = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=cutoff)
    return close[0] if close else None


def owner(path: Path, kinds: Mapping[str, str]) -> str:
    """`a recipe`, `stage tune (sft)`, `lora`: whose settings are at `path`."""
    if not path or path == ("stages",):
        return "a recipe"
    if path[0] == "stages" and len(path) == 2:
        name, kind = str(path[1]), kinds[str(path[1])]
        return f"stage {name}" if name == kind else f"stage {name} (kind {kind})"
    return label(path)


def label(path: Path) -> str:
    """`lora.r` for ("stages", "sft", "lora", "r"): short, because the stage is said beside it."""
    parts = path[2:] if path[:1] == ("stages",) and len(path) > 2 else path
    names = ".".join(part for part in parts if isinstance(part, str))
    return f"`{names}`" + "".join(f" item {part + 1}" for part in parts if isinstance(part, int))


def settings_text(kind: str) -> str:
    """Every key of one of `SETTINGS`: default, type and meaning, in the shape of YAML."""
    model = SETTINGS[kind]
    rows = list(_rows(model, "  "))
    width = min(max(len(left) for left, _ in rows), 40)
    heading = f"{kind}:  # {(model.__doc__ or '').splitlines()[0]}"
    return "\n".join([heading, *(f"{left:<{width}}  # {right}" for left, right in rows)])


def _rows(model: type[BaseModel], indent: str) -> Iterator[tuple[str, str]]:
    for name, field in fields(model).items():
        if name in ("kind", "stages"):
            continue
        options = _options(field.annotation)
        inner = next((option for option in options if _is_settings(option)), None)
        entry: Any = next((get_args(option)[0] for option in options if get_origin(option) is list), None)
        default = "" if field.is_required() else _default_words(field)
        meaning = ["required"] if field.is_required() else []
        meaning += [expected(_annotated(field))] if inner in (None, DataSettings) else []
        meaning += [field.description] if field.description else []
        yield (
            f"{indent}{name}: {default}".rstrip(),
            "; ".join(meaning) or (inner.__doc__ or "").splitlines()[0],
        )
        if inner not in (None, DataSettings):
            yield from _rows(inner, indent + "  ")
        if _is_settings(entry):
            yield from _entry_rows(entry, indent + "  ")


def _entry_rows(model: type[BaseModel], indent: str) -> Iterator[tuple[str, str]]:
    """The settings of one entry of a list: YAML's dash stands before the first."""
    for number, (left, right) in enumerate(_rows(model, indent + "  ")):
        yield left if number else f"{indent}- {left.lstrip()}", right


def _default_words(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if isinstance(value, BaseModel) else '""' if value == "" else _yaml_word(value)


def _annotated(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _is_settings(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _descend(annotation: Any, path: Path) -> Any:
    for part in path:
        for option in _options(annotation):
            if _is_settings(option) and part in fields(option):
                annotation = _annotated(fields(option)[str(part)])
                break
            if get_origin(option) in (dict, list) and (get_origin(option) is dict) == isinstance(part, str):
                annotation = get_args(option)[-1]
                break
        else:
            return None
    return annotation


def _options(annotation: Any) -> list[Any]:
    """What a union offers; the annotation itself when it is none."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for option in get_args(annotation) for inner in _options(option)]
    return [annotation]


def _bounds(metadata: tuple[Any, ...]) -> str:
    words = []
    for item in metadata:
        for inner in getattr(item, "metadata", None) or [item]:
            for name, phrase in (("gt", "above"), ("ge", "of at least"), ("lt", "below"), ("le", "at most")):
                if getattr(inner, name, None) is not None:
                    words.append(f"{phrase} {_yaml_word(getattr(inner, name))}")
    return f" {' and '.join(words)}" if words else ""


def _yaml_word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
