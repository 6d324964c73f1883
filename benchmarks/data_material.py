"""Any amount of documents from some megabytes of real text, with near duplicates planted; the same for the same seed.

A document is a run of sentences drawn from all over the real texts, so no two are alike by accident; every fourth one
has a copy in which a few words are replaced. The Jaccard similarity of 5-word shingles of each such pair is computed
with sets of Python and stored beside the documents.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

SEED = 4
FORMAT = 1
SENTENCE = re.compile(r"(?<=[.!?。！？])\s*")
SHINGLE_WORDS = 5
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
COPIED = 0.25
EDITED_SHARES = (0.0, 0.003, 0.006, 0.01, 0.015, 0.02, 0.025, 0.04)
"""Shares of a copy's words that are replaced: similarities from 1 to about 0.7."""


def make_documents(source: Path, cache: Path, megabytes: float) -> Path:
    """The file of JSON lines; made unless it is there."""
    target = cache / f"documents-{FORMAT}-{megabytes:g}.jsonl"
    pairs_file = target.with_suffix(".pairs.json")
    if target.exists() and pairs_file.exists():
        return target
    chance = random.Random(SEED)
    sentences = [each for text in real_texts(source) for each in SENTENCE.split(text) if len(each) > 20]
    pairs, waiting, size, number = [], [], 0, 0
    temporary = target.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            if waiting and chance.random() < COPIED:
                first, text = waiting.pop(chance.randrange(len(waiting)))
                copy = edited(text, chance)
                pairs.append((first, number, round(similarity(text, copy), 4)))
                text = copy
            else:
                text = drawn(sentences, chance)
                if len(waiting) < 5000:
                    waiting.append((number, text))
            line = json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"
            file.write(line)
            size += len(line.encode())
            number += 1
    pairs_file.write_text(json.dumps(pairs))
    os.replace(temporary, target)
    return target


def drawn(sentences: list[str], chance: random.Random) -> str:
    """Runs of three sentences until the document has 500 to 6,000 characters."""
    wanted, text = chance.randint(500, 6000), ""
    while len(text) < wanted:
        at = chance.randrange(len(sentences) - 3)
        text += " ".join(sentences[at : at + 3]) + chance.choice((" ", "\n\n"))
    return text.strip()


def edited(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    for _ in range(round(chance.choice(EDITED_SHARES) * len(words))):
        words[chance.randrange(len(words))] = chance.choice(words)
    return " ".join(words)


def similarity(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = WORD.findall(text.casefold())
        sets.append(
            {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
        )
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def real_texts(source: Path) -> list[str]:
    """Books, Wikipedia, web pages and Chinese poems."""
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for folder in ("gutenberg", "wikitext2", "tinyshakespeare")
        for file in sorted((source / folder).rglob("*.txt"))
        if file.name != "SOURCE.txt"
    ]
    for file in sorted((source / "chinese_poetry").rglob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        texts.append("\n".join(json.loads(line)["text"] for line in lines))
    if not texts:
        raise SystemExit(f"There is no text below {source}.")
    return texts
