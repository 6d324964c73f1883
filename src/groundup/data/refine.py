"""All that is asked of one document by itself: repaired, judged, masked. Nothing here knows of other documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from groundup.config.schema import CleanSettings
from groundup.data.clean import clean_text, content_hash
from groundup.data.decontaminate import NGRAM_WORDS, Contamination, read_contamination
from groundup.data.filters import FILTERS, Text
from groundup.data.html import html_text, is_html
from groundup.data.language import language_of
from groundup.data.pii import mask_pii


@dataclass(frozen=True)
class Refined:
    """What became of a document. `reason`: why it is dropped, "" where it is kept. `key`: its content hash."""

    text: str
    reason: str = ""
    detail: str = ""
    key: str = ""
    notes: Counter[str] = field(default_factory=Counter)
    """What was done to it, and how often."""


@dataclass(frozen=True)
class Refiner:
    """The settings as a function of texts, which other processes can be given."""

    html: str | bool
    min_chars: int
    language: tuple[str, ...]
    filters: tuple[str, ...]
    pii: bool
    contamination: Contamination | None

    def __call__(self, texts: Sequence[str]) -> list[Refined]:
        return [self.refine(text) for text in texts]

    def refine(self, raw: str) -> Refined:
        notes: Counter[str] = Counter()
        if self.html is True or (self.html == "auto" and is_html(raw)):
            raw = html_text(raw)
            notes["HTML pages turned into text"] += 1
        text = clean_text(raw)
        if not text or len(text) < self.min_chars:
            return Refined(text, self._too_short)
        if self.language and (code := language_of(text)) not in self.language:
            return Refined(text, f"language is not {' or '.join(self.language)}", f"recognised as {code}")
        document = Text(text)
        for name in self.filters:
            document, reason = FILTERS[name](document)
            if reason:
                return Refined(document.text, reason)
        if len(document.text) < len(text):
            notes["documents that lost lines"] += 1
            text = document.text
            if len(text) < self.min_chars:
                return Refined(text, self._too_short)
        if self.contamination and (found := self.contamination.find(text)):
            return Refined(text, f"shares {NGRAM_WORDS} words in a row with {found[0]}", found[1])
        if self.pii:
            text, masked = mask_pii(text)
            notes += masked
        return Refined(text, key=content_hash(text), notes=notes)

    @property
    def _too_short(self) -> str:
        return f"shorter than {self.min_chars} characters" if self.min_chars else "empty after cleaning"


def refiner_of(settings: CleanSettings) -> Refiner:
    """Reads the evaluation texts, if there are any. Raises UserError where one means nothing."""
    contamination = read_contamination(settings.decontaminate) if settings.decontaminate else None
    return Refiner(
        settings.html,
        settings.min_chars,
        tuple(settings.language),
        tuple(settings.filters),
        settings.pii,
        contamination,
    )
