"""The schema in plain words: what may stand at a place of a recipe, and what stood there instead."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from groundup.config.schema import STAGE_KINDS, DataSettings, Recipe

Path = tuple[str | int, ...]  # ("stages", "sft", "lora", "r"): the place of a value in a recipe

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
    """What may stand there: `a number above 0`, "`cosine` or `linear`", `text or null`."""
    metadata: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        metadata = tuple(rest)
    if get_origin(annotation) in (Union, types.UnionType):
        return _either([expected(option) for option in get_args(annotation)])
    if get_origin(annotation) is Literal:
        return _either([f"`{_yaml_word(value)}`" for value in get_args(annotation)])
    if get_origin(annotation) is list:
        return f"a list of {expected(get_args(annotation)[0]).removeprefix('a ')}s".replace("texts", "text")
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
    if isinstance(value, bool | int | float):
        return _yaml_word(value)
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:57] + "..."}"'
    return {list: "a list", dict: "settings"}.get(type(value), f"a {type(value).__name__}")


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `words` that was most likely meant."""
    close = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=cutoff)
    return close[0] if close else None


def owner(path: Path, kinds: Mapping[str, str]) -> str:
    """`a recipe`, `an sft stage`, `lora`: whose settings are at `path`."""
    if not path or path == ("stages",):
        return "a recipe"
    if path[0] == "stages" and len(path) == 2:
        kind = kinds[str(path[1])]
        return f"{'an' if kind[0] in 'aeiou' or kind == 'sft' else 'a'} {kind} stage"
    return f"`{label(path)}`"


def label(path: Path) -> str:
    """`lora.r` for ("stages", "sft", "lora", "r"): short, because the stage is said beside it."""
    parts = path[2:] if path[:1] == ("stages",) and len(path) > 2 else path
    names = [str(part) for part in parts if isinstance(part, str)]
    items = [f" item {part + 1}" for part in parts if isinstance(part, int)]
    return ".".join(names) + "".join(items)


def settings_text() -> str:
    """Every key of a recipe with its type, default and meaning, as `groundup recipes --settings` shows it."""
    lines = ["A recipe:", *_table(Recipe, indent="  ")]
    for kind, model in STAGE_KINDS.items():
        lines += ["", f"A stage of kind `{kind}`: {(model.__doc__ or '').splitlines()[0]}", *_table(model, "  ")]
    return "\n".join(lines)


def _table(model: type[BaseModel], indent: str) -> list[str]:
    lines = []
    for name, field in fields(model).items():
        inner = next((option for option in _options(field.annotation) if _is_settings(option)), None)
        if name in ("kind", "stages"):
            continue
        default = "required" if field.is_required() else f"default {_default_words(field, inner)}"
        what = f"{_described(field)}; {default}" if inner is None else default
        lines.append(f"{indent}{name}: {what}" + (f"  # {field.description}" if field.description else ""))
        if inner is not None:
            lines += _table(inner, indent + "  ")
    return lines


def _described(field: FieldInfo) -> str:
    if not field.metadata:
        return expected(field.annotation)
    return expected(Annotated[(field.annotation, *field.metadata)])


def _default_words(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "as follows"
    if value == "":
        return "empty"
    return "null" if value is None and inner is None else "none" if value is None else _yaml_word(value)


def _is_settings(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _descend(annotation: Any, path: Path) -> Any:
    for part in path:
        for option in _options(annotation):
            if _is_settings(option) and part in fields(option):
                field = fields(option)[str(part)]
                annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
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
            for name, phrase in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "up to")):
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
