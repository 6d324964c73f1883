"""Gopher's rules against repetition: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, table A1.

n-grams are of words, so their rules are for scripts that part words by spaces; those of lines and paragraphs hold for
all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from groundup.data.filters.text import Text

MAX_DUPLICATE_PARAGRAPHS = 0.30
MAX_DUPLICATE_PARAGRAPH_CHARS = 0.20
MAX_DUPLICATE_LINES = 0.30
MAX_DUPLICATE_LINE_CHARS = 0.20
MAX_TOP_NGRAM_CHARS = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_DUPLICATE_NGRAM_CHARS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_PARAGRAPH_END = re.compile(r"\n{2,}")
_LINE_END = re.compile(r"\n+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying loses nothing


def gopher_repetition(document: Text) -> tuple[Text, str]:
    """The document, and why it should go; "" where it may stay."""
    return document, _lines(document.text) or (_ngrams(document) if document.spaced else "")


def _lines(text: str) -> str:
    for name, pieces, most, most_chars in (
        (
            "paragraphs",
            _PARAGRAPH_END.split(text.strip()),
            MAX_DUPLICATE_PARAGRAPHS,
            MAX_DUPLICATE_PARAGRAPH_CHARS,
        ),
        ("lines", _LINE_END.split(text), MAX_DUPLICATE_LINES, MAX_DUPLICATE_LINE_CHARS),
    ):
        number, chars = duplicates(pieces)
        if number / len(pieces) > most:
            return f"gopher_repetition: more than {most:.0%} of {name} are repeated"
        if chars / len(text) > most_chars:
            return f"gopher_repetition: more than {most_chars:.0%} of characters in repeated {name}"
    return ""


def duplicates(pieces: Sequence[str]) -> tuple[int, int]:
    """How many pieces repeat an earlier one, and their characters."""
    if len(distinct := set(pieces)) == len(pieces):
        return 0, 0
    return len(pieces) - len(distinct), sum(map(len, pieces)) - sum(map(len, distinct))


def _ngrams(document: Text) -> str:
    # Words as numbers: comparing n-grams is then arithmetic on arrays.
    number_of = {word: number for number, word in enumerate(document.counts)}
    ids = np.fromiter(map(number_of.__getitem__, document.words), np.int64, len(document.words))
    sizes = np.fromiter(map(len, number_of), np.int64, len(number_of))[ids]
    ends = np.concatenate(([0], np.cumsum(sizes)))
    chars_of = {n: ends[n:] - ends[:-n] for n in (*MAX_TOP_NGRAM_CHARS, *MAX_DUPLICATE_NGRAM_CHARS)}
    hashes_of = {1: ids.astype(np.uint64)}
    for n in range(2, max(chars_of) + 1):
        hashes_of[n] = _longer(hashes_of[n - 1], hashes_of[1], n)
    total = len(document.text)
    most_often = max(document.counts.values(), default=0)
    for n, limit in MAX_TOP_NGRAM_CHARS.items():
        # An n-gram is no more frequent than its parts: mostly that is enough to know.
        if len(ids) < n or most_often * (int(chars_of[n].max()) + n - 1) <= limit * total:
            continue
        most_often = _highest_count(hashes_of[n])
        if most_often * (_chars_of_first(hashes_of[n], chars_of[n], most_often) + n - 1) / total > limit:
            return f"gopher_repetition: more than {limit:.0%} of characters are the same {n} words"
    for n, limit in MAX_DUPLICATE_NGRAM_CHARS.items():
        # What stands in repeated n-grams, overlaps counted once, bounds what the walk counts, here and for larger n.
        covered = _covered(hashes_of[n], sizes, n)
        if covered <= min(MAX_DUPLICATE_NGRAM_CHARS.values()) * total:
            break
        if covered > limit * total and _walk(hashes_of[n], chars_of[n], n) / total > limit:
            return (
                f"gopher_repetition: more than {limit:.0%} of characters in repeated sequences of {n} words"
            )
    return ""


def _longer(hashes: Any, ids: Any, n: int) -> Any:
    """Hashes [W-n+1] of the n-grams, from those of the (n-1)-grams and the words that follow them."""
    mixed = (hashes[: len(ids) - n + 1] + np.uint64(1)) * _MULTIPLIER
    mixed ^= mixed >> np.uint64(32)
    mixed += ids[n - 1 :]
    return mixed


def _highest_count(hashes: Any) -> int:
    """How often the most frequent n-gram stands there."""
    ordered = np.sort(hashes)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    return int(np.diff(starts).max())


def _chars_of_first(hashes: Any, chars: Any, count: int) -> int:
    """Characters of the n-gram that stands there `count` times, the highest number; of several the first."""
    if count == 1:
        return int(chars[0])
    ordered = np.sort(hashes)
    candidates = np.unique(ordered[count - 1 :][ordered[count - 1 :] == ordered[: len(ordered) - count + 1]])
    return int(chars[np.isin(hashes, candidates).argmax()])


def _covered(hashes: Any, sizes: Any, n: int) -> int:
    """Characters of the words that belong to an n-gram which stood there before."""
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return 0
    places = np.flatnonzero(repeated[np.searchsorted(repeated, hashes).clip(max=len(repeated) - 1)] == hashes)
    first = np.unique(hashes[places], return_index=True)[1]
    again = np.delete(places, first)
    inside = np.zeros(len(sizes), bool)
    for offset in range(n):
        inside[again + offset] = True
    return int(sizes[inside].sum())


def _walk(hashes: Any, chars: Any, n: int) -> int:
    """Characters in n-grams that were met before, walking from left to right and on behind each that was."""
    met: set[int] = set()
    found, total, place = hashes.tolist(), 0, 0
    while place < len(found):
        if found[place] in met:
            total += int(chars[place])
            place += n
        else:
            met.add(found[place])
            place += 1
    return total
