"""What a tokenizer's name stands for: a folder that holds one, or any model, whose tokenizer is meant."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import UserError
from groundup.hub.download import Wanted, download
from groundup.hub.models import PACKAGE, resolve_model
from groundup.hub.names import find_local, looks_like_path, missing_path

MARKS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def resolve_tokenizer(name: str, relative_to: str | Path | None = None) -> Path:
    """A folder that holds a tokenizer, or a .gguf file.

    name: a folder with a tokenizer in it, a stage folder, or what `resolve_model` understands; of a hub's model only
    the tokenizer is downloaded. relative_to: as for `resolve_model`. Raises UserError.
    """
    path = find_local(name, Path(relative_to) if relative_to else None)
    if path is None and not name.startswith(PACKAGE):
        if looks_like_path(name):
            raise missing_path(name, "tokenizer")
        return _checked(download(wanted_tokenizer(name)))
    for folder in [path, path / "final"] if path else []:
        if holds_tokenizer(folder):
            return folder
    source = resolve_model(name, relative_to=relative_to)
    while source.kind == "adapter" and not holds_tokenizer(source.path):
        source = resolve_model(source.base or "")
    return source.path if source.kind == "gguf" else _checked(source.path)


def wanted_tokenizer(name: str) -> Wanted:
    """What is downloaded of a hub's model for its tokenizer."""
    return Wanted(name, "model", ("*.json", "*.model", "*.txt", "*.jinja"), ("*/*",))


def holds_tokenizer(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _checked(folder: Path) -> Path:
    if holds_tokenizer(folder):
        return folder
    raise UserError(
        f"The folder {folder} holds no tokenizer.",
        why="there is no tokenizer.json",
        fix="copy the tokenizer's files into it, or name a folder that has them",
    )
