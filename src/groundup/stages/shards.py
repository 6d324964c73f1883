"""Clean documents to memory-mapped tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup import console
from groundup.hub import resolve_tokenizer
from groundup.stages.context import Context
from groundup.stages.tokenizer import texts
from groundup.store.files import hash_file, publish_folder
from groundup.tokenizer import load_tokenizer, write_shards


def run(context: Context) -> dict[str, Any]:
    """Write `data/train` and `data/heldout`, and the tokenizer into `final/`."""
    settings = context.settings
    source = context.input_stage(settings.from_, "clean")
    if settings.tokenizer in context.recipe.stages:
        tokenizer = load_tokenizer(context.input_stage(settings.tokenizer, "tokenizer").final)
    else:
        tokenizer = load_tokenizer(resolve_tokenizer(settings.tokenizer))
    publish_folder(context.stage.final, lambda folder: tokenizer.save_pretrained(folder))
    result: dict[str, Any] = {"kind": "shards"}
    for part in ("train", "heldout"):
        with console.progress(f"Tokenizing {part}", unit="document") as bar:
            path = source.data / f"{part}.jsonl"
            result[part] = write_shards(
                context.stage.data / part,
                partial(texts, path),
                tokenizer,
                source=hash_file(path),
                on_documents=bar.advance,
            )
    console.say(
        f"  {result['train']['tokens']:,} tokens to train on, {result['heldout']['tokens']:,} held out"
    )
    return result
