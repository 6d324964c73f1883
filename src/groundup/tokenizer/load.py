"""Tokenizers from folders and GGUF files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import pre_tokenizers

from groundup.errors import UserError
from groundup.store.files import read_json

if TYPE_CHECKING:  # transformers takes seconds to import, and reading shards needs none of it
    from transformers import PreTrainedTokenizerFast

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a Hugging Face folder or of a .gguf file; it never needs the network.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    from transformers import AutoTokenizer

    path = Path(path)
    if path.suffix == ".gguf" and path.is_file():
        return _with_digits_split(_load(path.parent, AutoTokenizer, gguf_file=path.name), path)
    if not any((path / name).is_file() for name in FILES):
        raise UserError(
            "There is no tokenizer.",
            where=str(path),
            why="none of " + ", ".join(FILES) + " is there",
            fix="copy the tokenizer's files of the base model into the folder, or name another model",
        )
    return _load(path, _class_for(path))


def _class_for(folder: Path) -> Any:
    """Whoever names the general class means tokenizer.json as it is.

    AutoTokenizer would let the model's kind overrule that: for a qwen2 model it adds a normalizer and a token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = folder / "tokenizer_config.json"
    named = read_json(config).get("tokenizer_class") if config.is_file() else None
    general = (
        named in ("PreTrainedTokenizerFast", "TokenizersBackend") and (folder / "tokenizer.json").is_file()
    )
    return PreTrainedTokenizerFast if general else AutoTokenizer


def _load(folder: Path, kind: Any, **options: str) -> PreTrainedTokenizerFast:
    try:
        with _quiet():
            tokenizer = kind.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, **options
            )
    except Exception as error:  # whatever a broken file makes the library raise
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            "The tokenizer cannot be loaded.",
            where=str(folder / options.get("gguf_file", "")),
            why=reason,
            fix="copy the tokenizer's files again, tokenizer.json and tokenizer_config.json at least",
        ) from error
    if not tokenizer.is_fast:
        raise UserError(
            "This tokenizer has no tokenizer.json.",
            where=str(folder),
            why="without it the place of each token in the text is unknown, and so is what to train on",
            fix="name a model that has one",
        )
    return tokenizer


def _with_digits_split(tokenizer: PreTrainedTokenizerFast, gguf: Path) -> PreTrainedTokenizerFast:
    """SmolLM2 splits numbers into digits. The file says so in a field that transformers does not read."""
    from gguf import GGUFReader

    field = GGUFReader(str(gguf)).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        core = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        core.pre_tokenizer = pre_tokenizers.Sequence([digits, core.pre_tokenizer])
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' advice is for programmers; errors still come as exceptions."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):  # it would warn that it must not
            logging.enable_progress_bar()
