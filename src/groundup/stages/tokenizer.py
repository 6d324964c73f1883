"""A tokenizer from clean documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from groundup import console
from groundup.data import is_held_out
from groundup.hub import resolve_tokenizer
from groundup.stages.context import Context
from groundup.store.files import publish_folder
from groundup.tokenizer import load_tokenizer, train_tokenizer
from groundup.tokenizer.fertility import fertility

FERTILITY_BYTES = 5_000_000
"""Of held-out text; more would change the third digit."""


def run(context: Context) -> dict[str, Any]:
    """Write `final/`, a Hugging Face tokenizer; it is measured on held-out text, beside others."""
    settings = context.settings
    source = context.input_stage(settings.from_, "clean")
    others = {_short(name): load_tokenizer(resolve_tokenizer(name)) for name in settings.compare_with}
    path = source.data / "train.jsonl"
    share = min(1.0, settings.sample_bytes / path.stat().st_size)
    of_text = "" if share == 1.0 else f" from {share:.1%} of the documents"
    console.say(f"  learning {settings.vocab_size:,} tokens{of_text}")
    with console.progress("Reading", unit="document") as bar:
        trained = train_tokenizer(_told(sample(path, settings.sample_bytes), bar), settings)
    publish_folder(context.stage.final, trained.save)
    size = len(trained.tokenizer)
    measured = fertility(
        {context.name: trained.tokenizer, **others}, sample(source.data / "heldout.jsonl", FERTILITY_BYTES)
    )
    own = measured[context.name]
    console.say(f"  {size:,} tokens; on held-out text:")
    for name, numbers in measured.items():
        console.say(f"    {name}: {_words(numbers)}")
    return {
        "kind": "tokenizer",
        "algorithm": settings.algorithm,
        "vocab_size": size,
        "sampled_share": share,
        "bytes_per_token": own["bytes_per_token"],
        "fertility": measured,
    }


def texts(path: Path, first: int = 0) -> Iterator[str]:
    """The documents that a clean stage wrote, from number `first` on."""
    with path.open("rb") as file:
        for line in islice(file, first, None):
            yield json.loads(line)["text"]


def sample(path: Path, most_bytes: int) -> Iterator[str]:
    """About so many bytes of a file's documents, chosen by their content; all of them if that is enough."""
    share = most_bytes / path.stat().st_size
    return (text for text in texts(path) if share >= 1.0 or is_held_out(f"sample {text}", share))


def _told(documents: Iterator[str], bar: console.Progress) -> Iterator[str]:
    for text in documents:
        bar.advance()
        yield text


def _short(name: str) -> str:
    return Path(name).name if Path(name).exists() else name


def _words(numbers: dict[str, Any]) -> str:
    """`3.91 bytes a token, 1.42 tokens a word (LATIN 4.02, CJK 2.91 bytes)`"""
    said = f"{numbers['bytes_per_token']:.2f} bytes a token"
    if "tokens_per_word" in numbers:
        said += f", {numbers['tokens_per_word']:.2f} tokens a word"
    scripts = [f"{name} {of['bytes_per_token']:.2f}" for name, of in numbers["by_script"].items()]
    return said + (f" ({', '.join(scripts)} bytes)" if len(scripts) > 1 else "")
