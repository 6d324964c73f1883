"""Corpora with planted near-duplicates."""

import json
import random

import pytest

WORDS = [f"{a}{b}{c}" for a in "bdgklmnprst" for b in "aeiou" for c in ("n", "r", "sh", "t", "lo", "mi")]


def edited(text, edits, chance):
    """`edits` words replaced by others."""
    words = text.split()
    for place in chance.sample(range(len(words)), edits):
        words[place] = chance.choice(WORDS) + "x"
    return " ".join(words)


@pytest.fixture(scope="session")
def planted():
    """240 texts of 30 to 200 words and, of two in three, copies with up to one word in twenty changed."""
    chance = random.Random(7)
    texts = []
    for number in range(240):
        text = " ".join(chance.choices(WORDS, k=chance.randint(30, 200)))
        texts.append(text)
        if number % 3:
            most = len(text.split()) // 20
            texts += [edited(text, chance.randint(1, most), chance) for _ in range(chance.randint(1, 4))]
    chance.shuffle(texts)
    return texts


@pytest.fixture
def written(tmp_path):
    """A function: texts as JSON lines in a file."""

    def write(texts):
        path = tmp_path / "documents.jsonl"
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
        return path

    return write
