"""Rows of .jsonl and .json files, read as a stream: lines, or the items of one list."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from groundup.data.raw import BLOCK_BYTES, RawRow, opened
from groundup.data.types import Origin
from groundup.errors import UserError

BOM = codecs.BOM_UTF8
NEAR_END = 16
"""Characters: where JSON breaks off nearer than this to what was read so far, more of it may mend it."""
MOST_ITEM_CHARS = 1 << 26
"""A longer item is none: a bracket or a quotation mark is missing, and reading on would end at the file's end."""


def json_lines(path: Path) -> Iterator[RawRow]:
    """One object a line; a line that is none comes as a row with a problem."""
    with opened(path) as file:
        yield from _lines(path, file)


def _lines(path: Path, file: IO[bytes]) -> Iterator[RawRow]:
    name, start = str(path), 0
    for number, line in enumerate(file, 1):
        text = line.removeprefix(BOM).strip() if number == 1 else line.strip()
        if text:
            yield _parsed(Origin(name, number, start), text)
        start += len(line)


def _parsed(origin: Origin, line: bytes) -> RawRow:
    try:
        return RawRow(origin, orjson.loads(line))
    except (
        ValueError
    ):  # four times as fast, and stricter: NaN and half a surrogate pair are for json to judge
        pass
    try:
        return RawRow(origin, json.loads(line.decode("utf-8")))
    except UnicodeDecodeError:
        return RawRow(origin, line.decode("utf-8", "replace"), "not valid UTF-8")
    except (ValueError, RecursionError):  # also whole numbers of thousands of digits, and endless nesting
        return RawRow(origin, line.decode("utf-8"), "not valid JSON")


def json_rows(path: Path) -> Iterator[RawRow]:
    """Items of one JSON list, each with the line where it begins; or JSON lines in a file called .json.

    Raises UserError where the list breaks off or the file is one object: nothing says where the next row would begin.
    """
    with opened(path) as file:
        first = _first_byte(file)
    if first not in (b"[", b""):
        yield from _lines_called_json(path)
        return
    with opened(path) as file:
        yield from _ListReader(path, file).items()


def _first_byte(file: IO[bytes]) -> bytes:
    """The first byte that is no white space; empty where there is none."""
    block = file.read(BLOCK_BYTES).removeprefix(BOM)
    while block and not block.strip():
        block = file.read(BLOCK_BYTES)
    return block.strip()[:1]


def _lines_called_json(path: Path) -> Iterator[RawRow]:
    for number, row in enumerate(json_lines(path)):
        if number == 0 and row.problem == "not valid JSON":
            raise UserError(
                "The file holds one JSON object, not rows.",
                where=str(row.origin),
                fix="write a list [{...}, {...}], or one object a line in a .jsonl file",
            )
        yield row


class _ListReader:
    """The items of a list that is never in memory as a whole.

    Bytes that are no UTF-8 become lone surrogates, so that they cost only the item that they stand in.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self.raw_decode = json.JSONDecoder().raw_decode
        self.text = ""
        self.at = 0  # in text
        self.line, self.byte = 1, 0  # of `at`, in the file
        self.ended = False

    def items(self) -> Iterator[RawRow]:
        self._more()
        if self.text.startswith("\ufeff"):
            self._move(1)
        if self._next() == "":
            return
        self._move(1)  # the [
        while self._next() not in ("]", ""):
            origin = Origin(str(self.path), self.line, self.byte)
            value, end = self._value()
            said = self._move(end - self.at)
            yield RawRow(origin, value) if said is None else RawRow(origin, said, "not valid UTF-8")
            if self._next() == ",":
                self._move(1)
            elif self._next() != "]":
                raise self._broken("a comma or ] is missing" if self._next() else "the closing ] is missing")
        if self._next() == "":
            raise self._broken("the closing ] is missing")
        self._move(1)
        if self._next():
            raise self._broken("something follows the closing ]")

    def _value(self) -> tuple[Any, int]:
        """The value that begins here, and where it ends; more of the file is read until it is whole."""
        while True:
            try:
                value, end = self.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self.text) - NEAR_END
                if self.ended or not cut:
                    raise self._broken(error.msg.removesuffix(" starting at"), error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self._broken(str(error)) from error
            else:
                if self.ended or end < len(self.text):  # a number could go on
                    return value, end
            if len(self.text) - self.at > MOST_ITEM_CHARS:
                raise self._broken("an item does not end: a bracket or a quotation mark is missing in it")
            self._more()

    def _next(self) -> str:
        """The next character that is no white space, and moves there; empty at the end of the file."""
        while True:
            end = self.at
            while end < len(self.text) and self.text[end] in " \t\r\n":
                end += 1
            self._move(end - self.at)
            if end < len(self.text):
                return self.text[end]
            if self.ended:
                return ""
            self._more()

    def _move(self, characters: int) -> str | None:
        """Passes over some characters; gives them back where they hold bytes that are no UTF-8."""
        passed = self.text[self.at : self.at + characters]
        self.at += characters
        self.line += passed.count("\n")
        try:
            self.byte += len(passed.encode())
        except UnicodeEncodeError:
            self.byte += len(passed.encode("utf-8", "surrogateescape"))
            return passed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return None

    def _more(self) -> None:
        """At least as much again as is not used yet, so that a long item is not parsed over and over."""
        rest = self.text[self.at :]
        block = self.file.read(max(BLOCK_BYTES, len(rest)))
        self.ended = not block
        self.text, self.at = rest + self.decode(block, final=self.ended), 0

    def _broken(self, why: str, at: int | None = None) -> UserError:
        """at: the place in `text`, if it is not where reading is."""
        passed = self.text[self.at : self.at if at is None else at]
        byte = self.byte + len(passed.encode("utf-8", "surrogateescape"))
        line = self.line + passed.count("\n")
        return UserError(
            "The file is not valid JSON.",
            where=f"{self.path}:{line}",
            why=f"{why} (at byte {byte})",
            fix="repair it there; in a .jsonl file, one object a line, a broken row costs only itself",
        )
