"""Text to tokens: train and load tokenizers, render chats, write and read token shards."""

from groundup.tokenizer.load import load_tokenizer
from groundup.tokenizer.shards import TokenShards, write_shards
from groundup.tokenizer.train import train_bpe

__all__ = ["TokenShards", "load_tokenizer", "train_bpe", "write_shards"]
