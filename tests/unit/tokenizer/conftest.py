"""A small tokenizer with the special tokens of the templates that are tried on it."""

import pytest

from groundup.tokenizer import train_bpe

TEXTS = [
    "user\nassistant\nsystem\n\nHello there, how are you? 12 + 34 = 46. Fine, thanks.\n\n" * 5,
    "naïve 你好 🙂",
]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|reply|>"]


@pytest.fixture
def tokenizer():
    made = train_bpe(TEXTS, 340)
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.add_tokens(["<think>", "</think>"])
    return made
