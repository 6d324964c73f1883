"""One document as the quality rules see it: words and lines, found once however many rules ask."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

UNSPACED_RANGES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_UNSPACED = re.compile(f"[{UNSPACED_RANGES}]+")
_NOT_LATIN = re.compile(  # letters; punctuation and emoji are left out
    "[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u3040-\ufdff\U00010000-\U0001efff\U00020000-\U0003ffff]+"
)
SCRIPT_SHARE = 0.3
"""A document is of a script when at least this share of its characters is; spaces and punctuation count as others."""

_WORD = re.compile(r"\w+(?:['’.,()\[\]\"_&+@#$]+\w+)*|\.{2,}|-{2,}|[^\w\s]")
_UNSPACED_WORD = re.compile(rf"[{UNSPACED_RANGES}]|[^\W{UNSPACED_RANGES}]+|\.{{2,}}|-{{2,}}|[^\w\s]")


class Text:
    """A document's text and what rules ask of it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def spaced(self) -> bool:
        """Whether spaces part its words: false for Chinese, Japanese, Thai, Lao, Burmese and Khmer."""
        return self.text.isascii() or _share(_UNSPACED, self.text) < SCRIPT_SHARE

    @cached_property
    def latin(self) -> bool:
        """False where a script other than the Latin one is found."""
        return self.text.isascii() or _share(_NOT_LATIN, self.text) < SCRIPT_SHARE

    @cached_property
    def words(self) -> list[str]:
        """Words, `don't` and `1,000.5` being one each, and marks of punctuation, each of its own.

        In a script without spaces each character is a word.
        """
        return (_WORD if self.spaced else _UNSPACED_WORD).findall(self.text)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word occurs, in the order of first occurrence."""
        return Counter(self.words)


def _share(pattern: re.Pattern[str], text: str) -> float:
    return sum(map(len, pattern.findall(text))) / max(len(text), 1)
