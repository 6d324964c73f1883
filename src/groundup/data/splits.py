"""Which of a folder's files belong to which split, and which split is meant."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.config.schema import DataSettings
from groundup.errors import UserError
from groundup.store.files import read_json

TRAIN = "train"
WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""The words by which the `datasets` library knows splits, in names of files and folders."""
_WORD = "|".join(WORDS)
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-\w+)?$")
_FILE = re.compile(rf"(?:.*[-._])?(?P<last>{_WORD})$|(?P<first>{_WORD})[-._].*$")
_TEXT = re.compile(rf"(?:\w+\.)?(?P<last>{_WORD})(?:\.\w+)?$")
ABOUT = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
"""What `datasets` and LLaMA-Factory write beside the rows, about them."""
MOST_NAMES = 3
"""So many files that are not read are named."""
_ABOUT_TEXT = re.compile(
    r"(readme|licen[cs]e|changelog|contributing|source)(_\w+)?\.(md|txt)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Choice:
    """The files to read of one name; said: in words which split they are and which others there are, or nothing."""

    files: list[Path]
    said: str = ""


def choose_split(name: str, files: Sequence[Path], spec: DataSettings, root: Path | None = None) -> Choice:
    """The files of the split that the settings mean, told by the files' names.

    A single file, and what a glob names, is read as it is. In a folder, a file that names no split belongs to train,
    but not beside shards like train-00000-of-00001: those are the data set, as `datasets` has it, and the others its
    raw form.
    root: the folder below which folders' names may say splits; default: the deepest that holds all files. Raises
    UserError where the split is not there, or several could be meant.
    """
    folder = not glob.has_magic(name) and not Path(name).expanduser().is_file()
    files = _rows_of_datasets(files) if folder else list(files)
    if not folder and not spec.split:
        return Choice(files)
    if root is None:
        root = Path(os.path.commonpath([path.parent for path in files]) if files else "")
    splits = {path: split_of(path, root) for path in files}
    found: dict[str, list[Path]] = {}
    sharded = any(split and _SHARD.match(_stem(path)) for path, split in splits.items())
    left_out = []
    for path, split in splits.items():
        if split or not any(splits.values()) or not (sharded or _is_text(path)):
            found.setdefault(split or TRAIN, []).append(path)
        elif not _is_text(path):  # beside splits, other text is about them
            left_out.append(path.name)
    return choose_from(name, found, spec, left_out)


def choose_from(
    name: str, found: Mapping[str, list[Path]], spec: DataSettings, left_out: Sequence[str] = ()
) -> Choice:
    """One split of these. left_out: files of none, to be told of. Raises UserError like `choose_split`."""
    if spec.split:
        chosen = spec.split if spec.split in found else WORDS.get(spec.split.lower(), spec.split)
        if chosen not in found:
            raise UserError(
                f"There is no split {spec.split}.",
                where=name,
                why=f"the splits are {', '.join(sorted(found))}" if found else "there are no files with rows",
                fix=f"take one of them, for example split: {min(found)}; or name a file" if found else "",
            )
    elif len(found) < 2:
        chosen = next(iter(found), TRAIN)
        if chosen == TRAIN and not left_out:
            return Choice(found.get(TRAIN, []))
    else:
        chosen = _preferred(name, sorted(found), spec.prefers)
    more = [f"{len(left_out) - MOST_NAMES} more files"] if len(left_out) > MOST_NAMES else []
    others = ", ".join([*sorted(set(found) - {chosen}), *left_out[:MOST_NAMES], *more])
    return Choice(found[chosen], f"split {chosen}" + (f"; not read: {others}" if others else ""))


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file's name says: NAME-00000-of-00001, a word, or a folder; or what a saved folder states."""
    if path.suffix == ".arrow" and (state := _state(path.parent)):
        stated = state.get("_split")
        return _known(path.parent.name if (path.parent.parent / "dataset_dict.json").is_file() else stated)
    stem = _stem(path)
    if shard := _SHARD.match(stem):
        stem = shard["split"]
        if stem.lower() not in ("data", "part", "shard", "chunk"):
            return _known(stem)
    text = _is_text(path)
    whole = path.name.rsplit(".", 1)[0] if text else stem
    if match := (_TEXT if text else _FILE).match(whole.lower()):
        return WORDS[next(word for word in match.groups() if word)]
    parts = path.parent.relative_to(root).parts if path.is_relative_to(root) else ()
    return next((WORDS[part.lower()] for part in reversed(parts) if part.lower() in WORDS), None)


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0]


def _is_text(path: Path) -> bool:
    return any(suffix.lower() in (".txt", ".md") for suffix in path.suffixes[-2:])


def _known(split: str | None) -> str | None:
    return WORDS.get(split.lower(), split) if split else None


def _preferred(name: str, found: Sequence[str], prefers: Sequence[str]) -> str:
    """The split that is meant without being named: the preferred one, or the only one whose name begins with it."""
    for wanted in prefers:
        if wanted in found:
            return wanted
        if len(close := [split for split in found if split.startswith(f"{wanted}_")]) == 1:
            return close[0]
    raise UserError(
        "It is not clear which split is meant.",
        where=name,
        why=f"there are {', '.join(found)}",
        fix=f"say it in the recipe: data: {{path: …, split: {found[0]}}}",
    )


def _rows_of_datasets(files: Sequence[Path]) -> list[Path]:
    """The files without what is about them, and without the caches that `datasets` leaves in a saved folder."""
    kept = []
    listed: dict[Path, set[str]] = {}
    for path in files:
        if path.name in ABOUT or _ABOUT_TEXT.match(path.name):
            continue
        if path.suffix == ".arrow":
            if path.parent not in listed:
                stated = _state(path.parent).get("_data_files") or []
                listed[path.parent] = {entry["filename"] for entry in stated}
            if listed[path.parent] and path.name not in listed[path.parent]:
                continue
        kept.append(path)
    return kept


def _state(folder: Path) -> dict[str, Any]:
    """What `save_to_disk` wrote about the folder's .arrow files; empty where nothing is."""
    path = folder / "state.json"
    if not path.is_file():
        return {}
    state = read_json(path)
    files = state.get("_data_files") or [] if isinstance(state, dict) else None
    if not isinstance(files, list) or not all(isinstance(f, dict) and "filename" in f for f in files):
        raise UserError(
            "The saved data set is damaged.", where=str(path), fix="save it again with save_to_disk"
        )
    return state
