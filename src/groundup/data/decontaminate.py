"""Texts of evaluations found again in training data, by common n-grams of words.

GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C) compares 13 words in lower case without punctuation, as we do;
it cuts the place out, we drop the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from groundup.config.schema import DataSettings
from groundup.data.files import BUILTIN, ROW_SUFFIXES, TEXT_SUFFIXES, files_of, read_rows, suffix_of
from groundup.data.filters.text import UNSPACED_RANGES
from groundup.data.raw import opened
from groundup.errors import UserError
from groundup.hub import resolve_data

NGRAM_WORDS = 13
_WORD = re.compile(r"\w+")
_WORD_OR_CHARACTER = re.compile(rf"[{UNSPACED_RANGES}]|[^\W{UNSPACED_RANGES}]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Contamination:
    """Evaluation texts as sorted hashes [K] of their n-grams and the number of the name [K] that each comes from."""

    names: tuple[str, ...]
    hash_K: Any
    name_K: Any
    texts: int
    """How many there are."""
    short: int
    """How many of them have fewer than NGRAM_WORDS words: these cannot be found."""

    def find(self, text: str) -> tuple[str, str] | None:
        """The name of the evaluation that shares an n-gram with `text`, and that n-gram; None where none does."""
        words = normal_words(text)
        hashes = ngram_hashes(words)
        if not len(self.hash_K) or not len(hashes):
            return None
        places = np.searchsorted(self.hash_K, hashes).clip(max=len(self.hash_K) - 1)
        hits = np.flatnonzero(self.hash_K[places] == hashes)
        if not len(hits):
            return None
        first = int(hits[0])
        return self.names[self.name_K[places[first]]], " ".join(words[first : first + NGRAM_WORDS])


def read_contamination(names: Sequence[str]) -> Contamination:
    """All texts of these files, folders and names. UserError where one means nothing."""
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint16)]
    texts = short = 0
    for number, name in enumerate(names):
        before = texts
        for text in _texts(name):
            found = ngram_hashes(normal_words(text))
            texts += 1
            short += not len(found)
            hashes.append(found)
            owners.append(np.full(len(found), number, np.uint16))
        if texts == before:
            raise UserError(
                "There is no text to decontaminate against.", where=name, fix="name a file with rows in it"
            )
    all_hashes = np.concatenate(hashes)
    unique, first = np.unique(all_hashes, return_index=True)
    return Contamination(tuple(names), unique, np.concatenate(owners)[first], texts, short)


def normal_words(text: str) -> list[str]:
    """Words in lower case without punctuation; in a script without spaces each character is one."""
    pattern = _WORD if text.isascii() else _WORD_OR_CHARACTER
    return pattern.findall(text.lower())


def ngram_hashes(words: Sequence[str]) -> Any:
    """uint64 [W-12]: a hash of each n-gram of words, the same in every process."""
    number_of = {
        word: xxhash.xxh3_64_intdigest(word.encode("utf-8", "backslashreplace")) for word in set(words)
    }
    ids = np.fromiter(map(number_of.__getitem__, words), np.uint64, len(words))
    count = max(len(ids) - NGRAM_WORDS + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for offset in range(NGRAM_WORDS):
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _MULTIPLIER + ids[offset : offset + count]
    return hashes


def evaluation_files(name: str) -> list[Path]:
    """Every file that can be read, of whatever split: what is meant to be asked may stand in any."""
    if name.startswith(BUILTIN):
        return files_of(name, DataSettings(path=[name])).files
    return [path for path in resolve_data(name) if suffix_of(path) in TEXT_SUFFIXES + ROW_SUFFIXES]


def _texts(name: str) -> Iterator[str]:
    """A text a row, all its strings behind one another; of plain text a text a file."""
    for path in evaluation_files(name):
        yield from _file_texts(path)


def _file_texts(path: Path) -> Iterator[str]:
    if suffix_of(path) in TEXT_SUFFIXES:
        with opened(path) as file:
            yield file.read().decode("utf-8", "replace")
        return
    for row in read_rows(path):
        if row.problem:
            raise UserError(
                "An evaluation text cannot be read.",
                where=str(row.origin),
                why=row.problem,
                fix="repair the line",
            )
        yield "\n".join(_strings(row.value))


def _strings(value: Any) -> Iterable[str]:
    """All strings of a row in their order. A column's name with spaces in it is text: a table without a heading."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (name for name in value if " " in name)
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
