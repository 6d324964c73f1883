"""What is asked of one document: each setting has an effect, and says what it did."""

import json

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.schema import CleanSettings, DataSettings
from groundup.data import clean, clean_text
from groundup.data.decontaminate import read_contamination
from groundup.data.html import html_text, is_html
from groundup.data.language import check_languages, language_of
from groundup.data.pii import EMAIL, IP4, IP6, PHONE, mask_pii
from groundup.data.refine import refiner_of
from groundup.errors import UserError

PAGE = """<!DOCTYPE html>
<html><head><title>T</title><style>p {color: red}</style></head><body>
<script>alert(1)</script><h1>A  title</h1>
<p>One <b>bold</b>
word &amp; more.<br>Next line.</p><ul><li>first</li><li>second</li></ul>
<pre>a
  b</pre></body></html>"""
ENGLISH = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep until the morning."
CHINESE = "北京是中华人民共和国的首都，也是全国的政治中心和文化中心，历史悠久，人口众多。" * 2


def refine(text, **settings):
    return refiner_of(CleanSettings(data=DataSettings(path=["x"]), **settings)).refine(text)


def test_html_becomes_what_a_browser_shows():
    text = clean_text(html_text(PAGE))
    assert [line for line in text.split("\n") if line] == [
        *("A title", "One bold word & more.", "Next line.", "first", "second", "a", "b"),
    ]
    assert is_html(PAGE) and is_html("<?xml version='1.0'?>\n<html lang=en>")
    assert not is_html("In HTML, <html> begins a page.") and not is_html("<b>bold</b> text")


def test_html_setting():
    assert refine(PAGE, min_chars=0).text.startswith("A title")
    assert refine(PAGE, min_chars=0).notes == {"HTML pages turned into text": 1}
    assert refine(PAGE, min_chars=0, html=False).text == clean_text(PAGE)
    assert refine("a <b>bold</b> word", min_chars=0).text == "a <b>bold</b> word"
    assert refine("a <b>bold</b> word", min_chars=0, html=True).text == "a bold word"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", f"Write to {EMAIL}."),
        ("<a@b.de>, c@d.fr", f"<{EMAIL}>, {EMAIL}"),
        ("@name and a @ b.c", "@name and a @ b.c"),
        ("at 8.8.8.8, port 53", f"at {IP4}, port 53"),
        ("127.0.0.1, 10.1.2.3, 999.1.1.1, 1.2.3.4.5", "127.0.0.1, 10.1.2.3, 999.1.1.1, 1.2.3.4.5"),
        ("2001:4860:4860::8888 answers", f"{IP6} answers"),
        ("std::vector at 12:30:15 ::1", "std::vector at 12:30:15 ::1"),
        ("call +49 (30) 1234-5678 now", f"call {PHONE} now"),
        ("1 + 12345678, +1234567, 030 1234567", "1 + 12345678, +1234567, 030 1234567"),
    ],
)
def test_pii(text, masked):
    found, counts = mask_pii(text)
    assert found == masked
    assert bool(counts) == (text != masked)
    assert mask_pii(found) == (found, {})


def test_pii_setting():
    text = f"{ENGLISH} Write to a@b.de or c@d.de."
    assert refine(text).text == text
    assert refine(text, pii=True).text.endswith(f"{EMAIL} or {EMAIL}.")
    assert refine(text, pii=True).notes == {"e-mail addresses masked": 2}


def test_language():
    assert language_of(ENGLISH) == "en" and language_of(CHINESE) == "zh"
    assert refine(CHINESE, language=["en"]).reason == "language is not en"
    assert refine(CHINESE, language=["en"]).detail == "recognised as zh"
    assert refine(CHINESE, language=["en", "zh"]).reason == ""
    check_languages(["en", "zh"], "here")
    with pytest.raises(UserError, match="zh-cn") as error:
        check_languages(["zh-cn"], "stages.clean.language")
    assert error.value.fix == "did you mean zh?"


def test_reasons_and_order():
    assert refine("short").reason == "shorter than 50 characters"
    assert refine(" \n", min_chars=0).reason == "empty after cleaning"
    assert refine("x" * 50).reason == ""
    assert refine(ENGLISH, filters=["gopher", "c4"]).reason.startswith("gopher: ")
    assert refine(ENGLISH, filters=["c4", "gopher"]).reason.startswith("c4: ")
    text = f"{ENGLISH}\n" * 5
    assert refine(f"Home | About\n{text}", filters=["c4"]).text == text.strip()
    assert refine(f"Home | About\n{text}", filters=["c4"]).notes == {"documents that lost lines": 1}


@pytest.fixture
def write(tmp_path):
    """Rows into a file of the test's folder; its path."""

    def into(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return into


@pytest.fixture
def evaluation(write):
    question = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
    return write(
        "eval.jsonl", [{"question": question, "answer": "72"}, {"question": "Too short?", "answer": "yes"}]
    )


def test_decontamination(evaluation):
    found = read_contamination([evaluation])
    assert (found.texts, found.short) == (2, 1)
    thirteen = "SOLD clips -- to 48 of her friends in\nApril and then she sold"
    fifty = "Some words before it so that it is long enough. "
    dropped = refine(f"{fifty}{thirteen} x", decontaminate=[evaluation])
    assert dropped.reason == f"shares 13 words in a row with {evaluation}"
    assert dropped.detail == "sold clips to 48 of her friends in april and then she sold"
    twelve = thirteen.replace(" sold", "")
    assert refine(f"{fifty}{twelve} x", decontaminate=[evaluation]).reason == ""
    assert refine(f"{fifty}{thirteen} x").reason == ""


def test_decontamination_against_nothing_is_an_error(write):
    with pytest.raises(UserError, match="no text to decontaminate"):
        read_contamination([write("eval.jsonl", [])])


def test_real_evaluations_find_themselves(groundup_data):
    for name in ("gsm8k", "arc"):
        found = read_contamination([str(groundup_data / "eval" / name)])
        assert found.texts > 1000 and found.short < found.texts / 20
        clean_books = (groundup_data / "pretrain" / "tinyshakespeare").glob("*.txt")
        assert found.find(next(iter(clean_books)).read_text(encoding="utf-8")) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_repairing_only_what_needs_it_changes_no_result(line):
    line = line.replace("\n", " ").replace("\r", " ")
    assert clean._repaired(line) == ftfy.fix_text(line, clean._REPAIR)
