"""What records look like, counted while they stream by: nothing here needs a tokenizer, or a row a second time.

A row leaves some numbers behind, 64 bytes in all, so that copies are found without keeping texts.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from ftfy.badness import badness

from groundup.data.layouts import Record
from groundup.data.ledger import Ledger
from groundup.data.recognise import Recognised
from groundup.data.types import Document, Message, Origin, Pair, said

MOST_EXAMPLES = 3
SCRIPT_CHARS = 1_000  # of a record, to tell its script
BAD = 2  # suspicious places in a text; a single one may be ä before a Chinese quotation mark
SCRIPTS = {
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "Han": re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]"),
    "Kana": re.compile(r"[\u3040-\u30ff]"),
    "Hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "Cyrillic": re.compile(r"[\u0400-\u052f]"),
    "Greek": re.compile(r"[\u0370-\u03ff]"),
    "Arabic": re.compile(r"[\u0600-\u077f]"),
    "Hebrew": re.compile(r"[\u0590-\u05ff]"),
    "Devanagari": re.compile(r"[\u0900-\u097f]"),
    "Thai": re.compile(r"[\u0e00-\u0e7f]"),
}


class Places:
    """How often each of some defects occurs, and where it did first."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def note(self, name: str, origin: Origin) -> None:
        self.count[name] += 1
        examples = self._examples.setdefault(name, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(str(origin))

    def examples(self, name: str) -> tuple[str, ...]:
        return tuple(self._examples.get(name, ()))


class LookingLedger(Ledger):
    """A ledger that remembers places and layouts, and goes on however many rows are bad."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = Places()
        self.layouts: dict[str, Recognised] = {}

    def quarantine(self, origin: Origin, reason: str, row: Any) -> None:
        super().quarantine(origin, reason, row)
        self.bad.note(reason, origin)

    def recognise(self, path: str, recognised: Recognised) -> None:
        super().recognise(path, recognised)
        self.layouts[path] = recognised

    def check(self, max_bad_rows: float, fix: str = "") -> None:
        """The share of bad rows is a finding here, not a stop."""


class Survey:
    """Numbers over all records of one kind."""

    def __init__(self) -> None:
        self.rows = 0
        self.places = Places()
        self.roles: Counter[str] = Counter()
        self.turns: Counter[int] = Counter()
        """How many rows have so many answers."""
        self.scripts: Counter[str] = Counter()
        self.with_tools = 0
        self.chars, self.answer_chars = array("q"), array("q")
        self.rejected_chars = array("q")
        self._row, self._prompt, self._answer = array("Q"), array("Q"), array("Q")
        self._line, self._file = array("q"), array("q")
        self._paths: dict[str, int] = {}

    def add(self, record: Record) -> None:
        """Count one record. Its text is not kept."""
        self.rows += 1
        self._line.append(record.origin.line)
        self._file.append(self._paths.setdefault(record.origin.path, len(self._paths)))
        if isinstance(record, Document):
            text = record.text
            self._row.append(_hash(text))
        else:
            text = self._messages(record)
        self.chars.append(len(text))
        self._text(text, record.origin)

    def _messages(self, record: Any) -> str:
        """A record of messages; its text comes back."""
        pair = isinstance(record, Pair)
        messages: list[Message] = [*record.prompt, *record.chosen] if pair else list(record.messages)
        every = [*messages, *record.rejected] if pair else messages
        self.roles.update(m.role for m in every)
        self.turns[sum(m.role == "assistant" for m in messages)] += 1
        self.with_tools += bool(getattr(record, "tools", None))
        self._order(messages, record.origin)
        written = [[m.as_dict() for m in messages], getattr(record, "tools", None)]
        written.append([m.as_dict() for m in record.rejected] if pair else getattr(record, "scored_from", 0))
        self._row.append(_hash(json.dumps(written, ensure_ascii=False)))
        if pair:
            self._sides(record)
        elif messages[-1].role == "assistant":
            self._asked(messages[:-1], _answered(messages[-1:]))
        return "\n".join(m.content for m in every)

    def _sides(self, pair: Pair) -> None:
        chosen, rejected = (_answered(side) for side in (pair.chosen, pair.rejected))
        self._asked(pair.prompt, chosen)
        self.rejected_chars.append(len(rejected))
        if _hash(chosen) == _hash(rejected):
            self.places.note("sides_nearly_equal", pair.origin)

    def _asked(self, prompt: Sequence[Message], answer: str) -> None:
        self._prompt.append(_hash(said(tuple(prompt))))
        self._answer.append(_hash(answer))
        self.answer_chars.append(len(answer.strip()))

    def _order(self, messages: Sequence[Message], origin: Origin) -> None:
        spoken = [m.role for m in messages if m.role != "system"]
        if spoken[:1] == ["assistant"]:
            self.places.note("begins_with_answer", origin)
        if any(a == b and a in ("user", "assistant") for a, b in pairwise(spoken)):
            self.places.note("same_role_twice", origin)

    def _text(self, text: str, origin: Origin) -> None:
        beginning = text[:SCRIPT_CHARS]
        if text.isascii():
            script = "Latin" if any(map(str.isalpha, beginning)) else "none"
            self.scripts[script] += 1
            return
        letters = {name: len(pattern.findall(beginning)) for name, pattern in SCRIPTS.items()}
        most = max(letters, key=lambda name: letters[name])
        self.scripts[most if letters[most] else "other" if any(map(str.isalpha, beginning)) else "none"] += 1
        if "\ufffd" in text:
            self.places.note("replacement_character", origin)
        elif badness(text) >= BAD:
            self.places.note("mojibake", origin)

    def copies(self) -> np.ndarray:
        """Numbers of the rows that are equal to an earlier one, but for case and white space."""
        return _later(self._row)

    def asked_again(self) -> np.ndarray:
        """Numbers of the rows that ask what an earlier row asks, and answer otherwise."""
        return np.setdiff1d(_later(self._prompt), self.copies())

    def commonest_answer(self) -> tuple[int, tuple[str, ...]]:
        """How many different rows give the commonest answer, and the first of them."""
        if not self._answer:
            return 0, ()
        answers = np.delete(np.frombuffer(self._answer, dtype=np.uint64), self.copies())
        values, counts = np.unique(answers, return_counts=True)
        top = int(np.argmax(counts))
        where = np.flatnonzero(np.frombuffer(self._answer, dtype=np.uint64) == values[top])
        return int(counts[top]), self.examples(where)

    def examples(self, rows: np.ndarray) -> tuple[str, ...]:
        """Places of the first of these rows."""
        paths = list(self._paths)
        return tuple(f"{paths[self._file[row]]}:{self._line[row]}" for row in rows[:MOST_EXAMPLES].tolist())


def _answered(messages: Sequence[Message]) -> str:
    """All that was answered: what was said, and calls of tools."""
    calls = [json.dumps(m.tool_calls, ensure_ascii=False) for m in messages if m.tool_calls]
    return "\n".join([*(m.content for m in messages if m.content), *calls])


def _hash(text: str) -> int:
    """Equal for texts that differ in case and white space only; a false copy among 10^7 rows has a chance of 3e-6."""
    return xxhash.xxh3_64_intdigest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))


def _later(hashes: array[int]) -> np.ndarray:
    values = np.frombuffer(hashes, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    return np.sort(order[1:][same])
