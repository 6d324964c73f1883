"""C4's rules: Raffel et al. 2020, arXiv 1910.10683, section 2.2, with what its published code adds.

They take out lines and judge what is left. The paper's list of bad words is not applied: it drops medicine, law and
much else with what it means (Dodge et al. 2021, arXiv 2104.08758, section 5).
"""

from __future__ import annotations

import re

from groundup.data.filters.text import Text

MIN_SENTENCES = 5
MIN_WORDS_PER_LINE = 3
MAX_WORD_CHARS = 1000
"""From c4_utils.py of tensorflow_datasets, as are the phrases on policies and the citation marks."""
LINE_ENDS = (".", "?", "!", '"', "'")
UNSPACED_LINE_ENDS = (*LINE_ENDS, "。", "？", "！", "”", "」", "』")
POLICIES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Za-z])(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)[.!?]+(?=[\s\"'”’)\]]|$)|[。！？]+"
)


def c4(document: Text) -> tuple[Text, str]:
    """The document without the lines that go, and why all of it should go; "" where it may stay."""
    kept = []
    sentences = 0
    for line in document.text.splitlines():
        line = line.strip()
        if _too_long_word(line):
            continue
        words = len(line.split())
        line = _CITATION.sub("", line)
        if not _is_sentence(line, words, document.spaced):
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return document, "c4: lorem ipsum"
        if "javascript" in lower:
            continue
        if "{" in line:
            return document, "c4: a curly bracket"
        if any(phrase in lower for phrase in POLICIES):
            continue
        sentences += count_sentences(line)
        kept.append(line)
    if sentences < MIN_SENTENCES:
        return document, f"c4: fewer than {MIN_SENTENCES} sentences in lines worth keeping"
    return Text("\n".join(kept).strip()), ""


def count_sentences(line: str) -> int:
    """Sentences of a line: ends of sentences, and what follows the last one."""
    last, number = 0, 0
    for match in _SENTENCE_END.finditer(line):
        last, number = match.end(), number + 1
    return number + any(map(str.isalnum, line[last:]))


def _too_long_word(line: str) -> bool:
    return len(line) > MAX_WORD_CHARS and any(len(word) > MAX_WORD_CHARS for word in line.split())


def _is_sentence(line: str, words: int, spaced: bool) -> bool:
    """Whether a line ends as a sentence does and has words enough, which are counted where spaces part them."""
    if not spaced:
        return line.endswith(UNSPACED_LINE_ENDS) and not line.endswith("...")
    return line.endswith(LINE_ENDS) and not line.endswith("...") and words >= MIN_WORDS_PER_LINE
