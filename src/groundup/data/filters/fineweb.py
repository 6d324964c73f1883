"""FineWeb's rules: Penedo et al. 2024, arXiv 2406.17557, section 3.6; its last one is from datatrove's code."""

from __future__ import annotations

from groundup.data.filters.repetition import duplicates
from groundup.data.filters.text import Text

MIN_LINES_WITH_PUNCTUATION = 0.12
MAX_SHORT_LINES = 0.67
SHORT_LINE_CHARS = 30
MAX_DUPLICATE_LINE_CHARS = 0.01
"""The paper has 0.1; datatrove, with which the data set was made, 0.01."""
MAX_LINE_ENDS_PER_WORD = 0.3

TERMINAL = tuple(".?!。！？．｡։؟۔।॥።၊။។៕๚๛‼⁇⁈⁉‽⸮﹒﹖﹗")


def fineweb(document: Text) -> tuple[Text, str]:
    """The document, and why it should go; "" where it may stay."""
    return document, _reason(document)


def _reason(document: Text) -> str:
    text = document.text
    lines = [line for line in text.split("\n") if line.strip()]
    if sum(line.endswith(TERMINAL) for line in lines) / len(lines) < MIN_LINES_WITH_PUNCTUATION:
        return f"fineweb: fewer than {MIN_LINES_WITH_PUNCTUATION:.0%} of lines end with punctuation"
    # Thirty characters are a whole sentence in Chinese, and what its words are nobody knows without a dictionary.
    if (
        document.spaced
        and sum(len(line) <= SHORT_LINE_CHARS for line in lines) / len(lines) > MAX_SHORT_LINES
    ):
        return f"fineweb: more than {MAX_SHORT_LINES:.0%} of lines have at most {SHORT_LINE_CHARS} characters"
    if duplicates(lines)[1] / len(text.replace("\n", "")) > MAX_DUPLICATE_LINE_CHARS:
        return f"fineweb: more than {MAX_DUPLICATE_LINE_CHARS:.0%} of characters in repeated lines"
    if document.spaced and text.count("\n") / len(document.words) > MAX_LINE_ENDS_PER_WORD:
        return f"fineweb: more than {MAX_LINE_ENDS_PER_WORD} line ends a word"
    return ""
