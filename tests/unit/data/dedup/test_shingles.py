"""Words and shingles against plain Python."""

import re

import numpy as np
import pytest

from groundup.data.dedup.shingles import shingles_of

TEXTS = [
    "The cat sat on the mat, and the cat sat on the hat.",
    "the CAT sat on the mat and the cat sat on the hat",
    "",
    "...!? —",
    "one two",
    "two one",
    "one two three four five",
    "你好，世界！今天天气很好。",
    "Groundup 训练 a model 从零开始 now",
    "naïve café déjà vu, encore une fois",
    "Straße und STRASSE sind fünf Wörter hier",
    "हिन्दी में एक छोटा सा वाक्य है",
    "a_b-c'd 3.14 x²",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16") + " smile at me 𠀀𠀁 please",
]


def plain_words(text):
    """The rule of shingles.py, character by character."""
    words, current = [], ""
    import unicodedata

    for char in text:
        char = char.casefold() if len(char.casefold()) == 1 else char
        alone = re.match(
            "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]", char
        )
        letter = unicodedata.category(char)[0] in "LMN"
        if letter and not alone and ord(char) < 0x20000:
            current += char
            continue
        words += [current] * bool(current) + [char] * letter
        current = ""
    return words + [current] * bool(current)


def plain_shingles(text, words):
    found = plain_words(text)
    if not found:
        return []
    return [tuple(found[i : i + words]) for i in range(max(1, len(found) - words + 1))]


@pytest.mark.parametrize("words", [1, 2, 5])
def test_hashes_are_equal_exactly_where_shingles_are(words):
    shingles = shingles_of(TEXTS, words)
    plain = [plain_shingles(text, words) for text in TEXTS]
    assert shingles.count_D().tolist() == [len(each) for each in plain]
    hashed = shingles.hash_N.tolist()
    listed = [shingle for each in plain for shingle in each]
    assert len(set(zip(listed, hashed))) == len(set(listed)) == len(set(hashed))


def test_a_block_changes_no_text(planted):
    together = shingles_of(planted[:50], 5)
    for number, text in enumerate(planted[:50]):
        alone = shingles_of([text], 5)
        first, last = together.first_D1[number : number + 2]
        assert np.array_equal(together.hash_N[first:last], alone.hash_N)


def test_ascii_and_other_texts_hash_alike():
    """A block of ASCII takes a shorter way."""
    (hashed,) = {
        tuple(shingles_of(texts, 3).hash_N[:2].tolist()) for texts in (["a b c d"], ["a b c d", "é"])
    }
    assert len(hashed) == 2


def test_words_in_another_order_are_another_text():
    first, second = shingles_of(["one two", "two one"], 5).hash_N
    assert first != second
