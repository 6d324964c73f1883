"""Named configurations of a data set, found as `datasets` finds them: in README.md's heading, else by folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundup.errors import UserError

DEFAULT = "default"
_HEADING = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Config:
    """One configuration. splits: its files by split, where the card names them; else all files, to be told by name."""

    name: str
    files: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]] | None = None
    default: bool = False


def read_configs(card: str, files: Sequence[str]) -> list[Config]:
    """The configurations that a card (README.md) declares for these files; empty where it declares none.

    files: names relative to the data set's folder. `datasets` documents the form:
    https://huggingface.co/docs/hub/datasets-manual-configuration
    """
    heading = _HEADING.match(card)
    try:
        declared = YAML(typ="safe", pure=True).load(heading[1]) if heading else None
    except (YAMLError, ValueError):  # the hub refuses such a card, so this one never described anything
        return []
    entries = declared.get("configs") if isinstance(declared, dict) else None
    if not isinstance(entries, list):
        return []
    return [
        _config(entry, files)
        for entry in entries
        if isinstance(entry, dict) and entry.get("config_name") is not None
    ]


def choose_config(name: str, wanted: str | None, card: str, files: Sequence[str]) -> Config:
    """The configuration that is meant. Raises UserError where it is not there, or several could be meant."""
    configs = read_configs(card, files)
    if not configs:
        return _by_folder(name, wanted, files)
    by_name = {config.name: config for config in configs}
    if wanted is not None:
        if wanted not in by_name:
            raise _missing(name, wanted, list(by_name))
        return by_name[wanted]
    defaults = [config for config in configs if config.default or config.name == DEFAULT]
    if len(configs) == 1 or len(defaults) == 1:
        return (defaults or configs)[0]
    raise UserError(
        "It is not clear which configuration is meant.",
        where=name,
        why=f"there are {_listed(list(by_name))}",
        fix=f"say it in the recipe: data: {{path: {name}, config: {configs[0].name}}}",
    )


def _by_folder(name: str, wanted: str | None, files: Sequence[str]) -> Config:
    """Without a card a folder is a configuration, and without a wish all files belong together."""
    if wanted is None:
        return Config(DEFAULT, tuple(files))
    folders = sorted({parts[0] for file in files if len(parts := PurePosixPath(file).parts) > 1})
    inside = tuple(file for file in files if file.startswith(f"{wanted}/"))
    if not inside:
        raise _missing(name, wanted, folders)
    return Config(wanted, inside)


def _missing(name: str, wanted: str, there: Sequence[str]) -> UserError:
    why = f"it has {_listed(there)}" if there else "it has no configurations"
    fix = f"take one of them, for example config: {there[0]}" if there else "take `config` out"
    return UserError(f"There is no configuration {wanted}.", where=name, why=why, fix=fix)


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _config(entry: Mapping[str, Any], files: Sequence[str]) -> Config:
    name, folder = str(entry["config_name"]), str(entry.get("data_dir") or "").strip("/")
    below = {
        file.removeprefix(f"{folder}/"): file for file in files if not folder or file.startswith(f"{folder}/")
    }
    declared = entry.get("data_files")
    default = entry.get("default") is True
    if declared is None:
        return Config(name, tuple(below.values()), None, default)
    splits = {
        split: tuple(whole for short, whole in below.items() if any(p.fullmatch(short) for p in patterns))
        for split, patterns in _patterns(declared).items()
    }
    listed = tuple(file for found in splits.values() for file in found)
    return Config(name, listed, splits, default)


def _patterns(declared: Any) -> dict[str, list[re.Pattern[str]]]:
    """`data_files` of a card: a pattern, a list of them, or a list of {split, path}."""
    items = declared if isinstance(declared, list) else [declared]
    found: dict[str, list[re.Pattern[str]]] = {}
    for item in items:
        split, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else ("train", item)
        for path in paths if isinstance(paths, list) else [paths]:
            found.setdefault(str(split), []).append(glob_pattern(str(path).removeprefix("./")))
    return found


def glob_pattern(text: str) -> re.Pattern[str]:
    """A glob of whole names: `*` and `?` within a folder, `**` over any, `[...]` one of these characters."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", text)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part) or _characters(part) for part in parts))


def _characters(part: str) -> str:
    if part.startswith("[") and part.endswith("]"):
        return part.replace("[!", "[^", 1).replace("\\", "\\\\")
    return re.escape(part)
