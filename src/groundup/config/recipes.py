"""The recipes that come with the package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from groundup.config import words
from groundup.errors import UserError


class ShippedRecipe(NamedTuple):
    """What `groundup recipes` lists."""

    name: str
    description: str
    forms: tuple[str, ...] = ()
    """Further forms, besides the recipe as it is written."""


def recipes_folder() -> Path:
    """Where they are installed, with their data in `data/`."""
    return Path(str(importlib.resources.files("groundup") / "recipes"))


def list_recipes() -> list[ShippedRecipe]:
    """All of them by name."""
    files = sorted(recipes_folder().glob("*.yaml"))
    read = [YAML(typ="safe", pure=True).load(file) for file in files]
    return [
        ShippedRecipe(file.stem, recipe.get("description", ""), tuple(recipe.get("forms", ())))
        for file, recipe in zip(files, read)
    ]


def recipe_text(name: str) -> str:
    """A shipped recipe as it was written, comments included. Raises UserError for an unknown name."""
    file = recipes_folder() / f"{name}.yaml"
    if not _plain(name) or not file.is_file():
        raise _unknown(name)
    return file.read_text(encoding="utf-8")


def copy_recipe(name: str, target: Path) -> list[Path]:
    """A shipped recipe, and the shipped data that it names, to `target` and beside it.

    Returns what was written, the recipe first. Raises UserError rather than overwriting anything.
    """
    text = recipe_text(name)
    contents = {target: text.encode()}
    for file in _named_files(YAML(typ="safe", pure=True).load(text)):
        contents[target.parent / file] = (recipes_folder() / file).read_bytes()
    for path, content in contents.items():
        if path.exists() and (path == target or path.read_bytes() != content):
            raise UserError(f"{path} is there already.", fix=f"Name another file: groundup init {name} FILE")
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise UserError(f"{path} cannot be written.", why=error.strerror or str(error)) from error
    return list(contents)


def _named_files(node: Any) -> list[str]:
    """The values in a recipe that are files beside the shipped recipes."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [name for item in node for name in _named_files(item)]
    return [node] if isinstance(node, str) and "/" in node and (recipes_folder() / node).is_file() else []


def find_recipe(name_or_path: str) -> Path:
    """The file that is meant: an existing file, else a shipped recipe. Raises UserError."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = recipes_folder() / f"{name_or_path}.yaml"
    if _plain(name_or_path) and shipped.is_file():
        return shipped
    if path.is_dir():
        inside = path / "recipe.yaml"
        again = f"To run it again: groundup run {inside} --out {path}" if inside.is_file() else ""
        raise UserError(
            f"{path} is a folder, and a recipe is a YAML file.", fix=again or "Name the file in it."
        )
    raise _unknown(name_or_path)


def _plain(name: str) -> bool:
    return bool(name) and not any(mark in name for mark in "/\\:")


def _unknown(name: str) -> UserError:
    shipped = [file.stem for file in sorted(recipes_folder().glob("*.yaml"))]
    path = Path(name).expanduser()
    beside = []
    if path.parent.is_dir():
        beside = [
            str(path.parent / file.name) for file in (*path.parent.glob("*.yaml"), *path.parent.glob("*.yml"))
        ]
    meant = words.nearest(name, [*shipped, *beside])
    hint = f"Did you mean `{meant}`? " if meant else ""
    return UserError(
        f"There is no recipe `{name}`: no such file, and none of that name is shipped.",
        fix=f"{hint}Shipped are: {', '.join(shipped)}.",
    )
