"""Files on disk to raw rows: which files a recipe means, and what stands on each line of them."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path

from groundup.config.schema import DataSettings
from groundup.data.raw import PACKINGS, RawRow, opened
from groundup.data.stdlib import stdlib_files
from groundup.data.types import Origin
from groundup.errors import UserError
from groundup.hub import resolve_data

TEXT_SUFFIXES = (".txt", ".md")
ROW_SUFFIXES = (".jsonl", ".json")
BUILTIN = "builtin:"
PYTHON_DOCS = "builtin:python-docs"


def data_paths(spec: DataSettings) -> list[Path]:
    """Every file that is read for these settings, in reading order. UserError where a name means nothing."""
    return [path for name in spec.path for path in files_of(name)]


def files_of(name: str) -> list[Path]:
    """The readable files that one file, folder, glob, hub name or builtin:NAME means, sorted."""
    if name.startswith(BUILTIN):
        return stdlib_files() if name == PYTHON_DOCS else [_shipped_file(name)]
    paths = resolve_data(name)
    readable = [path for path in paths if suffix_of(path) in TEXT_SUFFIXES + ROW_SUFFIXES]
    if not readable:
        endings = ", ".join(sorted({"".join(path.suffixes[-2:]) or path.name for path in paths})[:5])
        raise UserError(
            "No file of a known kind.",
            where=name,
            why=f"it holds {endings}",
            fix=f"known are {' '.join(ROW_SUFFIXES + TEXT_SUFFIXES)}, each also with {' '.join(PACKINGS)} behind it",
        )
    return readable


def suffix_of(path: Path) -> str:
    """The file's kind, without the packing behind it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = len(suffixes) > 1 and suffixes[-1] in PACKINGS
    return suffixes[-2] if packed else "".join(suffixes[-1:])


def _shipped_file(name: str) -> Path:
    folder = Path(str(importlib.resources.files("groundup"))) / "recipes" / "data"
    path = folder / f"{name.removeprefix(BUILTIN)}.jsonl"
    if not path.is_file():
        known = [PYTHON_DOCS, *(BUILTIN + file.stem for file in sorted(folder.glob("*.jsonl")))]
        raise UserError(f"There is no {name}.", fix=f"known are {', '.join(known)}")
    return path


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a .jsonl or .json file in order; broken lines come as rows with a problem."""
    if suffix_of(path) == ".json":
        yield from _json_rows(path)
        return
    with opened(path) as file:
        name, start = str(path), 0
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if text:
                yield _json_line(Origin(name, number, start), text)
            start += len(line)


def _json_line(origin: Origin, line: bytes) -> RawRow:
    try:
        return RawRow(origin, json.loads(line.decode("utf-8")))
    except UnicodeDecodeError:
        return RawRow(origin, line.decode("utf-8", "replace"), "not valid UTF-8")
    except (ValueError, RecursionError):  # also whole numbers of thousands of digits, and endless nesting
        return RawRow(origin, line.decode("utf-8"), "not valid JSON")


def _json_rows(path: Path) -> Iterator[RawRow]:
    """Items of one JSON list, each with the line where it begins; or JSON lines in a file called .json."""
    with opened(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = str(Origin(str(path), data.count(b"\n", 0, error.start) + 1))
        raise UserError("The file is not valid UTF-8.", where=where, fix="save it as UTF-8") from error
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] in ("[", ""):
        yield from _list_items(path, text, start + 1)
        return
    rows = [
        _json_line(Origin(str(path), n), line)
        for n, line in enumerate(text.encode().split(b"\n"), 1)
        if line.strip()
    ]
    if rows[0].problem:
        raise UserError(
            "The file holds one JSON object, not rows.",
            where=f"{path}:{rows[0].origin.line}",
            fix="write a list [{...}, {...}], or one object a line in a .jsonl file",
        )
    yield from rows


def _list_items(path: Path, text: str, position: int) -> Iterator[RawRow]:
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    position = _skip_space(text, position)
    while position < len(text) and text[position] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise _broken_list(path, error.lineno, error.msg) from error
        except (ValueError, RecursionError) as error:
            raise _broken_list(path, line, str(error)) from error
        yield RawRow(Origin(str(path), line), value)
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _broken_list(path, text.count("\n", 0, position) + 1, "a comma or ] is missing")
    if position >= len(text) and text.strip():
        raise _broken_list(path, text.count("\n") + 1, "the closing ] is missing")
    if rest := text[position + 1 :].lstrip():
        line = text.count("\n", 0, len(text) - len(rest)) + 1
        raise _broken_list(path, line, "something follows the closing ]")


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _broken_list(path: Path, line: int, why: str) -> UserError:
    return UserError(
        "The file is not valid JSON.",
        where=f"{path}:{line}",
        why=why,
        fix="repair it there; in a .jsonl file, one object a line, a broken row costs only itself",
    )
