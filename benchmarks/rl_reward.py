"""The reward that both sides are given, as TRL calls it: nothing that takes time."""

from __future__ import annotations

from typing import Any

WANTED = set("aeiou")


def vowels(completions: list[list[dict[str, str]]], **columns: Any) -> list[float]:
    """Share of vowels among an answer's letters."""
    values = []
    for (message,) in completions:
        letters = [letter for letter in message["content"].lower() if letter.isalpha()]
        values.append(sum(letter in WANTED for letter in letters) / max(1, len(letters)))
    return values
