"""How much text a token stands for, on text that the tokenizer did not learn from."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from groundup.tokenizer.encode import batches_of, without_special_text

SCRIPT_CHARACTERS = 2000
LEAST_SHARE = 0.01
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts that put no spaces between words, so that words cannot be counted by them."""


def fertility(tokenizers: Mapping[str, Any], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of each tokenizer `bytes_per_token`, `tokens_per_character`, `tokens_per_word`, and the same `by_script`.

    Bytes are UTF-8, words stand between white space, and tokens count without BOS and EOS. A document is of the script
    that most letters of its beginning have; scripts below 1% of the bytes are left out, and words where a script has no
    spaces between them.
    """
    cores = {name: without_special_text(made.backend_tokenizer) for name, made in tokenizers.items()}
    sizes: dict[str, Counter[str]] = {}
    for batch in batches_of(texts):
        scripts = [script_of(text) for text in batch]
        for text, script in zip(batch, scripts):
            of_script = sizes.setdefault(script, Counter())
            of_script["bytes"] += len(text.encode("utf-8"))
            of_script["characters"] += len(text)
            of_script["words"] += len(text.split())
        for name, core in cores.items():
            for script, encoding in zip(scripts, core.encode_batch_fast(batch, add_special_tokens=False)):
                sizes[script][f"tokens {name}"] += len(encoding.ids)
    total = sum(of_script["bytes"] for of_script in sizes.values())
    shown = {script: counts for script, counts in sizes.items() if counts["bytes"] >= LEAST_SHARE * total}
    everything = sum(sizes.values(), Counter())
    spaced = sum((counts for script, counts in sizes.items() if script not in UNSPACED), Counter())
    return {
        name: {
            **_numbers(everything, spaced, name),
            "by_script": {
                script: _numbers(counts, Counter() if script in UNSPACED else counts, name)
                for script, counts in sorted(shown.items(), key=lambda item: -item[1]["bytes"])
            },
        }
        for name in tokenizers
    }


def _numbers(counts: Counter[str], spaced: Counter[str], name: str) -> dict[str, float]:
    tokens = max(1, counts[f"tokens {name}"])
    numbers = {
        "bytes_per_token": counts["bytes"] / tokens,
        "tokens_per_character": tokens / max(1, counts["characters"]),
    }
    if spaced["words"]:
        numbers["tokens_per_word"] = spaced[f"tokens {name}"] / spaced["words"]
    return numbers


def script_of(text: str) -> str:
    """The script of most letters of a text's beginning, in Unicode's word: LATIN, CJK, CYRILLIC; OTHER without any."""
    found = Counter(map(_script, filter(str.isalpha, text[:SCRIPT_CHARACTERS])))
    return min(found, key=lambda script: (-found[script], script)) if found else "OTHER"


@lru_cache(maxsize=2**16)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "OTHER").split()[0]
