"""The rows of each work, read and tokenized once for all sides, and its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import WARM_UP_STEPS
from work import SHAPES, SHARE_TOKENS, SMALL_VOCABULARY_SHAPES, Work

from groundup.batch import Chain, Record
from groundup.batch.forest import shared_prefix_tokens
from groundup.config.schema import ChatSettings, DataSettings
from groundup.data import Ledger
from groundup.model import BaseLLM, ModelConfig, initialize, save_model
from groundup.stages.rows import Renderer, read_items
from groundup.tokenizer import load_tokenizer, train_bpe

FILES = {
    "hh": ("pairs", ["preference/hh_rlhf_test/harmless-base", "preference/hh_rlhf_test/helpful-base"]),
    "lf": ("pairs", ["preference/llamafactory_demo/dpo_en_demo.json"]),
    "alpaca": ("conversations", ["sft/alpaca_en_sample/alpaca_data.json"]),
    "gsm8k": ("conversations", ["sft/gsm8k_train/train.jsonl"]),
}
DOCUMENTS = "pretrain/tinyshakespeare/input.txt"
SMALL_VOCABULARY = 8192


@dataclass(frozen=True)
class Material:
    """Where rows and models come from."""

    data: Path
    model: Path
    cache: Path
    max_length: int

    _rendered: dict[str, list[Record]] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    def model_of(self, work: Work) -> Path:
        """The main model, or random weights of a shape, made once."""
        if not work.shape:
            return self.model
        small = work.shape in SMALL_VOCABULARY_SHAPES
        tokenizer = self.small_tokenizer if small else self.tokenizer
        folder = self.cache / f"{work.shape}-{len(tokenizer)}"
        if not (folder / "config.json").is_file():
            config = config_of(work.shape, len(tokenizer), tokenizer.eos_token_id)
            save_model(initialize(BaseLLM(config, torch.float32), seed=0), folder, tokenizer)
        return folder

    @cached_property
    def small_tokenizer(self) -> Any:
        return train_bpe([self.text], SMALL_VOCABULARY)

    @cached_property
    def text(self) -> str:
        return (self.data / DOCUMENTS).read_text(encoding="utf-8")

    def steps_of(self, work: Work, measured: int) -> tuple[tuple[Record, ...], ...]:
        """The rows of the steps that warm up and of the measured ones."""
        count = work.batch * (measured + WARM_UP_STEPS)
        kind, _, details = work.rows.partition(":")
        make: dict[str, Callable[[], list[Record]]] = {
            "share": lambda: made_pairs(self.pool, int(details), count),
            "blocks": lambda: self.blocks(work, int(details), count),
            "made": lambda: made_records(self.pool, *map(int, details.split(":")), count=count),
        }
        records = make[kind]() if kind in make else chosen(self.rendered(kind), count)
        records = [replace(record, index=index) for index, record in enumerate(records)]
        return tuple(tuple(records[i : i + work.batch]) for i in range(0, count, work.batch))

    def rendered(self, name: str) -> list[Record]:
        """Rows of a data set through Groundup's own reading and chat rendering, none longer than max_length."""
        if name in self._rendered:
            return self._rendered[name]
        kind, paths = FILES[name]
        ledger = Ledger()
        items = read_items(DataSettings(path=[str(self.data / path) for path in paths]), ledger, kind)
        order = np.random.default_rng(0).permutation(len(items))[:400]
        renderer = Renderer(self.tokenizer, ChatSettings(), self.max_length)
        records = [Record(0, chains) for _, chains in renderer.chains([items[i] for i in order], ledger)]
        return self._rendered.setdefault(name, [record for record in records if same_in_both(record)])

    @cached_property
    def pool(self) -> np.ndarray:
        """Real tokens to cut made rows from."""
        return np.array(self.tokenizer(self.text[:400_000]).input_ids, dtype=np.int32)

    def blocks(self, work: Work, length: int, count: int) -> list[Record]:
        """Pieces of length + 1 tokens, of which `length` are predicted."""
        small = work.shape in SMALL_VOCABULARY_SHAPES
        tokens = np.array(
            (self.small_tokenizer if small else self.tokenizer)(self.text).input_ids, dtype=np.int32
        )
        starts = np.linspace(0, len(tokens) - length - 1, count).astype(int)
        return [Record(0, (chain_of(tokens[at : at + length + 1], 1),)) for at in starts]


def config_of(shape: str, vocabulary: int, eos: int | None) -> ModelConfig:
    hidden, middle, layers, heads, kv_heads = SHAPES[shape]
    return ModelConfig.from_hf(
        {
            **{"model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden},
            **{"intermediate_size": middle, "num_hidden_layers": layers, "num_attention_heads": heads},
            **{"num_key_value_heads": kv_heads, "max_position_embeddings": 8192, "rope_theta": 1e5},
            **{"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "eos_token_id": eos},
        }
    )


def same_in_both(record: Record) -> bool:
    """Whether TRL can be given the very same: everything behind the prompt is scored, on both sides of a pair."""
    prompts = {int(np.argmax(chain.scored)) for chain in record.chains}
    shared = shared_prefix_tokens(record.chains) if len(record.chains) > 1 else min(prompts)
    return prompts == {shared} and all(chain.scored[shared:].all() for chain in record.chains)


def chosen(records: Sequence[Record], count: int) -> list[Record]:
    """The first `count`, which stand in random order; again from the start where there are too few."""
    if not records:
        raise ValueError("no usable rows")
    return [records[i % len(records)] for i in range(count)]


def chain_of(token: np.ndarray, scored_from: int) -> Chain:
    scored = np.arange(len(token)) >= scored_from
    return Chain(token.astype(np.int32), scored)


def made_pairs(pool: np.ndarray, share_percent: int, count: int) -> list[Record]:
    """Pairs cut from real text, whose prompt has that share of the pair's tokens."""
    prompt = SHARE_TOKENS * share_percent // 100
    return made_records(pool, prompt, (SHARE_TOKENS - prompt) // 2, 2, count=count)


def made_records(pool: np.ndarray, prompt: int, answer: int, siblings: int, *, count: int) -> list[Record]:
    """Records of one prompt and `siblings` answers, cut from real text."""
    records, size = [], prompt + answer * siblings
    for number in range(count):
        at = number * size % (len(pool) - size)
        cut = pool[at : at + size]
        answers = cut[prompt:].reshape(siblings, answer).copy()
        answers[:, 0] = np.arange(siblings) + 100  # answers differ from their first token on
        chains = tuple(chain_of(np.concatenate([cut[:prompt], one]), prompt) for one in answers)
        records.append(Record(0, chains))
    return records


def real_tokens(records: Sequence[Record]) -> int:
    """Prompt, chosen and rejected of pairs, the prompt counted once; else whole conversations."""
    total = 0
    for record in records:
        shared = shared_prefix_tokens(record.chains) if len(record.chains) > 1 else 0
        total += sum(len(chain.token) for chain in record.chains) - shared * (len(record.chains) - 1)
    return total


def all_tokens(records: Sequence[Record]) -> tuple[int, int]:
    """Tokens of all sequences, a prompt counted for each, and how many of them the loss sees."""
    chains = [chain for record in records for chain in record.chains]
    return sum(len(chain.token) for chain in chains), sum(int(chain.scored.sum()) for chain in chains)
