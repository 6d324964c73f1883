"""Cleaning repairs what is broken, keeps what the author meant, and changes nothing the second time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import clean_text, content_hash
from groundup.data.clean import book_span

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a \t \nb\u3000\n", "a\nb"),
        ("a\n\n \n\n\nb", "a\n\nb"),
        ("\ufeffa\x00\x07b\x1b", "ab"),
        ("a\tb", "a\tb"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafÃ© â€” fine", "café — fine"),
        ("“quotes”, ﬁ, &amp;", "“quotes”, ﬁ, &amp;"),
        ("全角，标点！Ａ", "全角，标点！Ａ"),
        ("page\x0cpage", "page\npage"),
        (" \n\t ", ""),
    ],
)
def test_clean_text(raw, clean):
    assert clean_text(raw) == clean


@given(TEXT)
def test_cleaning_twice_changes_nothing_more(text):
    once = clean_text(text)
    assert clean_text(once) == once


def test_duplicates_differ_at_most_in_case_and_space():
    assert content_hash("A  b\nc") == content_hash("a b C ")
    assert content_hash("a b c") != content_hash("a bc")


def test_book_span_is_what_stands_between_the_markers():
    head = b"The Project Gutenberg EBook\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n"
    tail = b"*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nlicence\n"
    assert book_span(head + b"story\n" + tail) == (len(head) - 1, len(head) + 6)
    assert book_span(head + b"story") is None
    assert book_span(b"story") is None
