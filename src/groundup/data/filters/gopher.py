"""Gopher's quality rules: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, "Quality filtering".

The paper leaves open what a word is. As in datatrove, whose datasets most people know, marks of punctuation count as
words where a share of words is asked for, and do not where words are counted or measured.
"""

from __future__ import annotations

from groundup.data.filters.text import Text

MIN_WORDS, MAX_WORDS = 50, 100_000
MIN_MEAN_WORD_CHARS, MAX_MEAN_WORD_CHARS = 3, 10
MAX_SYMBOLS_PER_WORD = 0.1
"""For the hash sign and for the ellipsis, each."""
MAX_BULLET_LINES = 0.9
MAX_ELLIPSIS_LINES = 0.3
MIN_ALPHABETIC_WORDS = 0.8
STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
MIN_STOP_WORDS = 2

_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")


def gopher(document: Text) -> tuple[Text, str]:
    """The document, and why it should go; "" where it may stay."""
    return document, _words(document) or _symbols(document) or _language(document)


def _words(document: Text) -> str:
    real = {word: count for word, count in document.counts.items() if any(map(str.isalnum, word))}
    number = sum(real.values())
    if number < MIN_WORDS:
        return f"gopher: fewer than {MIN_WORDS} words"
    if number > MAX_WORDS:
        return f"gopher: more than {MAX_WORDS:,} words"
    if not document.spaced:  # each character is a word there
        return ""
    mean = sum(len(word) * count for word, count in real.items()) / number
    if mean < MIN_MEAN_WORD_CHARS:
        return f"gopher: words shorter than {MIN_MEAN_WORD_CHARS} characters on average"
    if mean > MAX_MEAN_WORD_CHARS:
        return f"gopher: words longer than {MAX_MEAN_WORD_CHARS} characters on average"
    return ""


def _symbols(document: Text) -> str:
    text, number = document.text, len(document.words)
    if text.count("#") / number > MAX_SYMBOLS_PER_WORD:
        return f"gopher: more than {MAX_SYMBOLS_PER_WORD} hash signs a word"
    if sum(map(text.count, _ELLIPSES)) / number > MAX_SYMBOLS_PER_WORD:
        return f"gopher: more than {MAX_SYMBOLS_PER_WORD} ellipses a word"
    lines = text.splitlines()
    if sum(line.lstrip().startswith(_BULLETS) for line in lines) / len(lines) > MAX_BULLET_LINES:
        return f"gopher: more than {MAX_BULLET_LINES:.0%} of lines begin with a bullet"
    if sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / len(lines) > MAX_ELLIPSIS_LINES:
        return f"gopher: more than {MAX_ELLIPSIS_LINES:.0%} of lines end with an ellipsis"
    return ""


def _language(document: Text) -> str:
    counts = document.counts
    alphabetic = sum(count for word, count in counts.items() if any(map(str.isalpha, word)))
    if alphabetic / len(document.words) < MIN_ALPHABETIC_WORDS:
        return f"gopher: fewer than {MIN_ALPHABETIC_WORDS:.0%} of words have a letter"
    # The list is English; in another script it would drop everything.
    if document.latin and sum(word in counts for word in STOP_WORDS) < MIN_STOP_WORDS:
        return f"gopher: fewer than {MIN_STOP_WORDS} of {len(STOP_WORDS)} English stop words"
    return ""
