"""Text to tokens: train and load tokenizers, render chats, write and read token shards."""

from typing import Any, TypeAlias

from groundup.tokenizer.load import load_tokenizer
from groundup.tokenizer.shards import TokenShards, write_shards
from groundup.tokenizer.train import train_bpe, train_tokenizer

Tokenizer: TypeAlias = Any
"""A transformers tokenizer: the class depends on the file, so only its common methods are used."""

__all__ = ["TokenShards", "Tokenizer", "load_tokenizer", "train_bpe", "train_tokenizer", "write_shards"]
