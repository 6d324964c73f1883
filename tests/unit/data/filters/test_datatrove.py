"""The same decisions as datatrove's filters on real text.

Word for word the rules are the same: given our words, datatrove decides the same on every document. Its own words come
from spaCy, which parts `don't` and abbreviations otherwise; then a few documents near a threshold differ.
"""

from __future__ import annotations

from functools import cache

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, clean_text, read_documents
from groundup.data.filters import FILTERS, Text
from groundup.data.filters.c4 import count_sentences

datatrove_filters = pytest.importorskip(
    "datatrove.pipeline.filters", reason="datatrove is not installed: pip install groundup[bench]"
)
from datatrove.data import Document  # noqa: E402
from datatrove.utils.text import split_into_parts  # noqa: E402
from datatrove.utils.word_tokenizers import WordTokenizer  # noqa: E402

THEIRS = {
    "gopher": datatrove_filters.GopherQualityFilter,
    "gopher_repetition": datatrove_filters.GopherRepetitionFilter,
    "c4": datatrove_filters.C4QualityFilter,
    "fineweb": datatrove_filters.FineWebQualityFilter,
}
AGREEMENT_WITH_SPACY = {"gopher": 0.93, "gopher_repetition": 0.97, "c4": 0.98, "fineweb": 0.99}


class OurWords(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return Text(text).words

    def sent_tokenize(self, text: str) -> list[str]:
        raise AssertionError("no filter here asks for sentences")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i in range(count_sentences(text))]


@cache
def _documents(folder, every):
    sources = [folder / "pretrain" / name for name in ("llamafactory_demo", "gutenberg", "wikitext2/*.txt")]
    spec = DataSettings(path=[*map(str, sources), "builtin:python-docs"], max_bad_rows=0.99)
    texts = [clean_text(document.text) for document in read_documents(spec, Ledger())]
    return [text for text in texts if text][::every]


def _decisions(name, texts, language):
    theirs_filter = THEIRS[name](language=language)
    split_into_parts.cache_clear()
    for text in texts:
        document = Document(text=text, id="")
        verdict = theirs_filter.filter(document)
        ours, reason = FILTERS[name](Text(text))
        yield verdict is True, document.text, reason == "", ours.text


@pytest.mark.parametrize("name", THEIRS)
def test_equal_given_the_same_words(groundup_data, name):
    texts = _documents(groundup_data, 24)
    kept = 0
    for their_keep, their_text, our_keep, our_text in _decisions(name, texts, OurWords()):
        assert our_keep == their_keep
        kept += our_keep
        if our_keep:
            assert our_text == their_text
    assert 0 < kept < len(texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_nearly_equal_with_its_own_words(groundup_data, name):
    pytest.importorskip("spacy", reason="spaCy, which datatrove finds words with, is not installed")
    texts = _documents(groundup_data, 24)
    decisions = list(_decisions(name, texts, "en"))
    same = sum(theirs == ours for theirs, _, ours, _ in decisions) / len(decisions)
    print(f"{name}: {same:.1%} of {len(decisions)} documents decided alike")
    assert same >= AGREEMENT_WITH_SPACY[name]
