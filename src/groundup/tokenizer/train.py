"""Tokenizers from text, as Hugging Face's: byte-level BPE here, SentencePiece's two kinds in `pieces.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from groundup.config.schema import ChatSettings, TokenizerSettings
from groundup.errors import UserError
from groundup.tokenizer.chat import stop_tokens
from groundup.tokenizer.pieces import train_sentencepiece
from groundup.tokenizer.template import template_text

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
_TEMPLATE_TOKENS = re.compile(r"<\|\w+\|>")

# The words of Qwen2, which llama.cpp knows as "qwen2": contractions, letters with one leading sign, single digits,
# signs, line ends, spaces. Digits one by one make numbers look alike whatever their length.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

GGUF = {
    "bpe": {"model": "gpt2", "pre": "qwen2"},
    "unigram": {"model": "t5", "pre": "default"},
    "sentencepiece_bpe": {"model": "llama", "pre": "default"},
}
"""What llama.cpp calls each algorithm (tokenizer.ggml.model) and its pre-tokenizer (tokenizer.ggml.pre). It stands in
tokenizer_config.json under `gguf`, so that whoever exports need not guess.
Its t5 has no bytes for what has no piece."""


@dataclass(frozen=True)
class Trained:
    """A new tokenizer; `model`: SentencePiece's own file, where that made it."""

    tokenizer: PreTrainedTokenizerFast
    model: bytes | None = None

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        if self.model is not None:
            (folder / "tokenizer.model").write_bytes(self.model)


def train_tokenizer(texts: Iterable[str], settings: TokenizerSettings) -> Trained:
    """The tokenizer that a recipe asks for, its chat template tried on a conversation.

    The same texts in the same order give the same tokenizer. Raises UserError without text, for a size that the
    algorithm cannot have, and for a template that cannot be used.
    """
    template = template_text(settings.chat_template)
    extra = [*_TEMPLATE_TOKENS.findall(template or ""), *settings.special_tokens]
    special = list(dict.fromkeys([BOS, EOS, PAD, *extra]))
    model = None
    if settings.algorithm == "bpe":
        core = _train_bpe(texts, settings.vocab_size, special)
    else:
        core, model = train_sentencepiece(
            _counted(texts), settings.algorithm, settings.vocab_size - len(special)
        )
        core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    made = _wrapped(core, special, settings.algorithm, template)
    if template:
        stop_tokens(made, ChatSettings())  # analyses the template; every problem is told
    return Trained(made, model)


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, special ones included, without a chat template.

    All 256 bytes are tokens, so any text comes back as it was. Encoding adds <|bos|>; <|eos|> is left to whoever knows
    where a document ends. Raises UserError without text.
    """
    special = [BOS, EOS, PAD]
    return _wrapped(_train_bpe(texts, vocab_size, special), special, "bpe", None)


def _train_bpe(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_counted(texts), trainer)
    return core


def _wrapped(
    core: Tokenizer, special: Sequence[str], algorithm: str, template: str | None
) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, core.token_to_id(BOS))],
    )
    more: dict[str, Any] = {"additional_special_tokens": list(special[3:])} if special[3:] else {}
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        gguf=GGUF[algorithm],
        **more,
    )
    made.chat_template = template
    return made


def _counted(texts: Iterable[str]) -> Iterator[str]:
    """The texts that hold something; UserError where none does."""
    empty = True
    for text in texts:
        if text:
            empty = False
            yield text
    if empty:
        raise UserError("There is no text to train a tokenizer on.", fix="look at what the clean stage kept")
