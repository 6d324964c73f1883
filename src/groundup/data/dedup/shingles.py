"""Texts as sets of shingles: hashes of a few words in a row, whole blocks of texts at once.

A word is a run of letters, marks and digits without regard to case; a character of a script that is written without
spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) is a word of its own. A text of fewer words than a shingle is one
shingle; a text without any word has none, and nothing is near it. All is arithmetic of 64 bits on arrays, so the same
text has the same hashes on every machine and in every process.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

SPACE, LETTER, ALONE = 0, 1, 2
_ALONE = (  # first and last code point of scripts without spaces
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
_LETTER_BASE = 0x9E3779B97F4A7C15
"""Odd, so it has an inverse modulo 2^64; the golden ratio, as in splitmix64."""
_WORD_BASE = 0xD1342543DE82EF95


@dataclass(frozen=True)
class Shingles:
    """The shingles of D texts, repeated ones included; text d has `hash_N[first_D1[d]:first_D1[d + 1]]`."""

    hash_N: U64
    first_D1: I64

    def count_D(self) -> I64:
        return np.diff(self.first_D1)


def shingles_of(texts: Sequence[str], words: int) -> Shingles:
    """Hashes of `words` words in a row of each text. About 40 bytes of memory a character, so call it for blocks."""
    word_W, first_D1 = _words(texts)
    if not len(word_W):
        return Shingles(word_W, np.zeros(len(texts) + 1, np.int64))
    rolled_W = word_W.copy()
    for ahead in range(1, words):
        rolled_W *= np.uint64(_WORD_BASE)
        rolled_W[:-ahead] += word_W[ahead:]
    count_D = np.diff(first_D1)
    for short in np.flatnonzero((count_D > 0) & (count_D < words)):  # what followed was the next text's
        at = first_D1[short]
        rolled_W[at] = _rolled(word_W[at : at + count_D[short]])
    # The last words - 1 words of a text begin no shingle.
    keep_D = np.where(count_D >= words, count_D - words + 1, np.minimum(count_D, 1))
    first = np.concatenate([[0], np.cumsum(keep_D)])
    index = np.arange(first[-1]) + np.repeat(first_D1[:-1] - first[:-1], keep_D)
    return Shingles(mixed(rolled_W[index]), first)


def _rolled(word_W: U64) -> np.uint64:
    total = np.zeros(1, np.uint64)
    for word in word_W:
        total = total * np.uint64(_WORD_BASE) + word
    return np.uint64(total[0])


def _words(texts: Sequence[str]) -> tuple[U64, I64]:
    """A hash of each word [W] of all texts, and where each text's begin [D+1].

    A word's hash is the polynomial of its code points at _LETTER_BASE, from differences of one running sum.
    """
    joined = "\n".join([*texts, ""])
    ascii_only = joined.isascii()
    code = np.frombuffer(
        joined.encode("ascii" if ascii_only else "utf-32-le", "surrogatepass"),
        np.uint8 if ascii_only else "<u4",
    )
    kind, code = _kinds(ascii_only)[code], _folds(ascii_only)[code]
    word = kind != SPACE
    start = word.copy()
    start[1:] &= (kind[1:] == ALONE) | (kind[:-1] != LETTER)
    end = word
    end[:-1] &= (kind[:-1] == ALONE) | (kind[1:] != LETTER)
    start_W, end_W = np.flatnonzero(start), np.flatnonzero(end)
    power, inverse = _powers(max(len(code), 1))
    running = np.cumsum(power[: len(code)] * code, dtype=np.uint64)
    sum_W = running[end_W] - running[start_W] + power[start_W] * code[start_W]
    # The length tells a word from the same word behind characters of code 0.
    word_W = mixed(sum_W * inverse[start_W] + (end_W - start_W).astype(np.uint64))
    text_ends = np.cumsum([len(text) + 1 for text in texts])
    first_D1 = np.concatenate([[0], np.searchsorted(start_W, text_ends)]).astype(np.int64)
    return word_W, first_D1


def mixed(value: U64) -> U64:
    """The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@lru_cache(maxsize=2)
def _kinds(ascii_only: bool) -> NDArray[np.uint8]:
    """SPACE, LETTER or ALONE for each code point. From the third plane on there are only ideographs."""
    looked_at = 128 if ascii_only else 0x20000
    table = np.zeros(looked_at if ascii_only else sys.maxunicode + 1, np.uint8)
    for code in range(looked_at):
        if unicodedata.category(chr(code))[0] in "LMN":
            table[code] = LETTER
    if ascii_only:
        return table
    for first, last in _ALONE[:-1]:
        table[first : last + 1] *= ALONE
    first, last = _ALONE[-1]
    table[first : last + 1] = ALONE
    return table


@lru_cache(maxsize=2)
def _folds(ascii_only: bool) -> NDArray[np.uint32]:
    """What each code point is without regard to case, where that is one code point; ß stays ß."""
    table = np.arange(128 if ascii_only else sys.maxunicode + 1, dtype=np.uint32)
    for code in range(128 if ascii_only else 0x20000):
        if len(folded := chr(code).casefold()) == 1:
            table[code] = ord(folded)
    return table


_cached_powers: list[tuple[U64, U64]] = []


def _powers(count: int) -> tuple[U64, U64]:
    """_LETTER_BASE^i and _LETTER_BASE^-i modulo 2^64, at least `count` of each; the longest asked for is kept."""
    if not _cached_powers or len(_cached_powers[0][0]) < count:
        size = 1 << (count - 1).bit_length()
        bases = (_LETTER_BASE, pow(_LETTER_BASE, -1, 1 << 64))
        factors = np.array([[base] * size for base in bases], np.uint64)
        factors[:, 0] = 1
        _cached_powers[:] = [tuple(np.cumprod(factors, axis=1))]
    return _cached_powers[0]
