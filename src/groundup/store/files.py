"""JSON files, JSON lines and content hashes. What is written is whole or absent."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import xxhash

from groundup.errors import UserError
from groundup.store.atomic import explained, publish_folder, write_text

__all__ = [
    "append_jsonl",
    "fingerprint",
    "hash_file",
    "hash_inputs",
    "publish_folder",
    "read_json",
    "read_jsonl",
    "to_json",
    "write_json",
    "write_text",
]


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON. Dataclasses, paths, sets and number scalars are fine; NaN becomes null."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The parsed file; `UserError` where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise UserError(
            "A file is not valid JSON.", where=where, why=str(error), fix="Restore or remove it."
        ) from error
    except OSError as error:
        raise UserError(
            "A file could not be read.", where=str(path), why=error.strerror or str(error)
        ) from error


def append_jsonl(path: Path, value: Any) -> None:
    """Adds one line. A line that a crash cut short is removed first, so every line of the file stays whole."""
    with explained(path, "A file could not be written."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _cut_torn_line(file)
            file.write((to_json(value) + "\n").encode())


def read_jsonl(path: Path) -> list[Any]:
    """All whole lines of a file that `append_jsonl` wrote; a missing file has none.

    Raises:
        UserError: a line is not JSON, with its number.
    """
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(
        path.read_bytes().split(b"\n")[:-1], 1
    ):  # after the last newline: nothing, or torn
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise UserError("A line is not valid JSON.", where=f"{path}:{number}", why=str(error)) from error
    return values


def _cut_torn_line(file: Any) -> None:
    """Truncates an open file to its last newline."""
    end = file.seek(0, os.SEEK_END)
    keep = end
    while keep > 0:
        start = max(0, keep - 65536)
        file.seek(start)
        newline = file.read(keep - start).rfind(b"\n")
        keep = start + newline + 1 if newline >= 0 else start
        if newline >= 0:
            break
    if keep < end:
        file.truncate(keep)


def hash_file(path: Path) -> str:
    """xxh3, 128 bits, of a file's bytes, as hexadecimal: fast, and not against forgery."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_inputs(paths: Iterable[Path]) -> str:
    """One hash of the contents of files and folders, in the order given; where they lie does not matter.

    In a folder the relative names count too. Hidden files, which tools and file managers leave behind, do not.

    Raises:
        UserError: a path does not exist.
    """
    return fingerprint([_hash_input(Path(path)) for path in paths])


def _hash_input(path: Path) -> Any:
    if not path.exists():
        raise UserError("A file or folder is missing.", where=str(path), fix="Check the path's spelling.")
    try:
        if path.is_file():
            return hash_file(path)
        return sorted((file.relative_to(path).as_posix(), hash_file(file)) for file in _visible_files(path))
    except OSError as error:
        raise UserError(
            "A file could not be read.", where=error.filename or str(path), why=error.strerror or ""
        ) from error


def _visible_files(folder: Path) -> Iterator[Path]:
    """Every file below `folder` that is not hidden; links to folders are followed, each folder once."""
    seen = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def fingerprint(value: Any) -> str:
    """xxh3, 128 bits, of `value` as canonical JSON: equal content has an equal fingerprint in any order of keys."""
    return xxhash.xxh3_128_hexdigest(to_json(value, sort_keys=True).encode())


def to_json(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Strict JSON of nested plain data, dataclasses, pydantic models, paths, sets and number scalars."""
    options: dict[str, Any] = {
        "indent": indent,
        "sort_keys": sort_keys,
        "ensure_ascii": False,
        "default": _plain,
    }
    try:
        text = json.dumps(value, allow_nan=False, **options)
    except ValueError:  # NaN and infinity are no JSON
        text = json.dumps(_finite(json.loads(json.dumps(value, **options))), **options)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no UTF-8


def _plain(value: Any) -> Any:
    """What `json` is told about values that it does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json", by_alias=True)
    if hasattr(value, "item"):  # a scalar of numpy or torch
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
