"""A tokenizer from clean documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from groundup import console
from groundup.stages.context import Context
from groundup.store.files import publish_folder
from groundup.tokenizer import train_bpe


def run(context: Context) -> dict[str, Any]:
    """Write `final/`, a Hugging Face tokenizer; its fertility is measured on held-out text."""
    source = context.input_stage(context.settings.from_, "clean")
    console.say(f"  learning {context.settings.vocab_size:,} tokens")
    tokenizer = train_bpe(texts(source.data / "train.jsonl"), context.settings.vocab_size)
    publish_folder(context.stage.final, lambda folder: tokenizer.save_pretrained(folder))
    held_out = list(texts(source.data / "heldout.jsonl"))
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in held_out)
    total_bytes = sum(len(text.encode("utf-8")) for text in held_out)
    console.say(
        f"  {len(tokenizer):,} tokens; one is {total_bytes / tokens:.2f} bytes of held-out text on average"
    )
    return {"kind": "tokenizer", "vocab_size": len(tokenizer), "bytes_per_token": total_bytes / tokens}


def texts(path: Path, first: int = 0) -> Iterator[str]:
    """The documents that a clean stage wrote, from number `first` on."""
    with path.open("rb") as file:
        for line in islice(file, first, None):
            yield json.loads(line)["text"]
