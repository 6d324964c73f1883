"""Texts as sets of shingles: hashes of a few words in a row, whole blocks of texts at once.

A word is a run of letters, marks and digits without regard to case; a character of a script that is written without
spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) is a word of its own. A text of fewer words than a shingle is one
shingle; a text without any word has none, and nothing is near it. All is arithmetic of 64 bits on arrays, so the same
text has the same hashes on every machine and in every process.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

SPACE, LETTER, ALONE = 0, 1, 2
KIND_BIT = 24
PART_CHARS = 1 << 17
"""So many characters are cut into words at a time: their arrays stay in a processor's cache."""
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
    """Hashes of `words` words in a row of each text."""
    parts = [_some_shingles(some, words) for some in _parts(texts)]
    count_D = np.concatenate([np.zeros(1, np.int64), *(count for _, count in parts)])
    return Shingles(
        np.concatenate([np.zeros(0, np.uint64), *(each for each, _ in parts)]), np.cumsum(count_D)
    )


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in parts of about PART_CHARS, or one that is longer."""
    first = chars = 0
    for number, text in enumerate(texts):
        if chars and chars + len(text) > PART_CHARS:
            yield texts[first:number]
            first, chars = number, 0
        chars += len(text) + 1
    if first < len(texts):
        yield texts[first:]


def _some_shingles(texts: Sequence[str], words: int) -> tuple[U64, I64]:
    """Hashes of the shingles of all texts, and how many each text has [D]."""
    word_W, count_D = _words(texts)
    rolled_W = word_W.copy()
    for ahead in range(1, min(words, len(word_W))):
        rolled_W *= np.uint64(_WORD_BASE)
        rolled_W[:-ahead] += word_W[ahead:]
    end_D = np.cumsum(count_D)
    for short in np.flatnonzero((count_D > 0) & (count_D < words)):  # what followed was the next text's
        at = end_D[short] - count_D[short]
        rolled_W[at] = _rolled(word_W[at : end_D[short]])
    # The last words - 1 words of a text begin no shingle, but for the first word of a shorter one.
    keep_D = np.where(count_D >= words, count_D - words + 1, np.minimum(count_D, 1))
    begins = np.ones(len(word_W), bool)
    for back in range(1, words):
        begins[(end_D - back)[count_D - keep_D >= back]] = False
    return mixed(rolled_W[begins]), keep_D


def _rolled(word_W: U64) -> np.uint64:
    total = np.zeros(1, np.uint64)
    for word in word_W:
        total = total * np.uint64(_WORD_BASE) + word
    return np.uint64(total[0])


def _words(texts: Sequence[str]) -> tuple[U64, I64]:
    """A hash of each word [W] of all texts, and how many each text has [D].

    A word's hash is the polynomial of its code points at _LETTER_BASE, from differences of one running sum.
    """
    kind, code = _characters("\n".join([*texts, ""]))
    word, letter = kind != SPACE, kind == LETTER
    joins = letter[1:] & letter[:-1]  # to the character before
    start, end = word.copy(), word
    start[1:] &= ~joins
    end[:-1] &= ~joins
    start_W, end_W = np.flatnonzero(start), np.flatnonzero(end) + 1
    power, inverse = _powers(max(len(code), 1))
    running = np.zeros(len(code) + 1, np.uint64)
    np.multiply(power[: len(code)], code, out=running[1:])
    np.cumsum(running, out=running)
    sum_W = running[end_W] - running[start_W]
    # The length tells a word from the same word behind characters of code 0.
    word_W = mixed(sum_W * inverse[start_W] + (end_W - start_W - 1).astype(np.uint64))
    text_ends = np.cumsum([len(text) + 1 for text in texts])
    return word_W, np.diff(np.searchsorted(start_W, text_ends), prepend=0).astype(np.int64)


def _characters(text: str) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger]]:
    """The kind of each character, and its code point without regard to case."""
    if text.isascii():
        data = text.encode("ascii")
        return np.frombuffer(data.translate(_ascii_kinds()), np.uint8), np.frombuffer(data.lower(), np.uint8)
    code = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    known = _table().take(code, mode="clip")  # no code is outside, and looking for one takes as long again
    return (known >> np.uint32(KIND_BIT)).astype(np.uint8), known & np.uint32((1 << KIND_BIT) - 1)


def mixed(value: U64) -> U64:
    """The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@lru_cache(maxsize=1)
def _ascii_kinds() -> bytes:
    """SPACE or LETTER for each byte."""
    return bytes(LETTER if chr(code).isalnum() else SPACE for code in range(128)) + bytes(128)


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """For each code point what it is without regard to case, and from KIND_BIT on its kind.

    A code point that casefolds to several stays itself, as ß does. From the third plane on there are only ideographs.
    """
    kind = np.zeros(sys.maxunicode + 1, np.uint32)
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(0x20000):
        if unicodedata.category(chr(code))[0] in "LMN":
            kind[code] = LETTER
        if len(folded := chr(code).casefold()) == 1:
            table[code] = ord(folded)
    for first, last in _ALONE[:-1]:
        kind[first : last + 1] *= ALONE
    first, last = _ALONE[-1]
    kind[first : last + 1] = ALONE
    return table | kind << np.uint32(KIND_BIT)


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
