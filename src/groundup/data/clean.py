"""Raw text made clean: what would teach a model nothing but noise goes, everything else stays as it was."""

from __future__ import annotations

import re
import unicodedata

import ftfy
import xxhash
from ftfy.badness import is_bad

# Only what is broken is repaired: typographic quotes, ligatures, full-width letters and HTML entities are the author's.
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    normalization="NFC",
    explain=False,
)
_MORE_TO_REPAIR = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]"
)
"""Control characters, escapes of terminals and surrogates, which ftfy removes or repairs besides mojibake."""
_LINE_ENDS = re.compile(r"\r\n?|[\f\v\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_TRAILING_SPACE = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")

_LICENCE_START = re.compile(
    rb"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE
)
_LICENCE_END = re.compile(
    rb"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg).*$",
    re.MULTILINE | re.IGNORECASE,
)


def clean_text(text: str) -> str:
    """Repaired, NFC, with \\n line ends, no control characters, trailing spaces or runs of blank lines.

    Cleaning twice changes nothing more.
    """
    text = _LINE_ENDS.sub("\n", text)
    if not text.isascii():  # ASCII has nothing to repair, and repairing is slow
        lines = text.split("\n")
        text = "\n".join(line if line.isascii() else _repaired(line) for line in lines)
    text = _CONTROL.sub("", text)
    text = _TRAILING_SPACE.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip()


def _repaired(line: str) -> str:
    """What ftfy makes of the line. Most need none of its repairs, and to know that is cheaper than to try them."""
    if is_bad(line) or _MORE_TO_REPAIR.search(line):
        return ftfy.fix_text(line, _REPAIR)
    return unicodedata.normalize("NFC", line)


def book_span(data: bytes) -> tuple[int, int] | None:
    """Where the book begins and ends between Project Gutenberg's licence blocks; None without both markers."""
    if not (start := _LICENCE_START.search(data)):
        return None
    end = _LICENCE_END.search(data, start.end())
    return (start.end(), end.start()) if end else None


def content_hash(text: str) -> str:
    """xxh3, 128 bits, of the text without regard to case and white space: equal for exact duplicates."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.casefold().split()).encode())
