"""A base model on token shards, measured in bits per byte beside gzip and xz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup import console
from groundup.batch import Chain, Record, Stream
from groundup.config.schema import ShardsSettings
from groundup.data import compression_baselines
from groundup.errors import UserError
from groundup.eval import bits_per_byte
from groundup.eval.answers import continue_texts
from groundup.infer.load import check_vocabulary
from groundup.model import (
    BaseLLM,
    LanguageModel,
    ModelConfig,
    StockConfig,
    initialize,
    load_model,
    read_config,
    save_model,
)
from groundup.objective import LanguageModeling
from groundup.stages.context import Context
from groundup.stages.models import find_model
from groundup.stages.tokenizer import texts
from groundup.stages.training import (
    Compute,
    Material,
    choose_compute,
    choose_layout,
    evaluate_on,
    make_plan,
    run_training,
    say_plan,
)
from groundup.tokenizer import Tokenizer, TokenShards, load_tokenizer

SAMPLE_TOKENS = 80


def run(context: Context) -> dict[str, Any]:
    """Train `final/`, a Hugging Face folder with its tokenizer."""
    settings = context.settings
    source = context.input_stage(settings.from_, "shards")
    tokenizer = load_tokenizer(source.final)
    if settings.batch_tokens < settings.max_length:
        raise UserError(
            f"batch_tokens ({settings.batch_tokens}) is less than max_length ({settings.max_length})",
            where=f"stages.{context.name}",
            fix="raise batch_tokens, or lower max_length",
        )
    pieces, heldout = (
        Pieces(checked_shards(source.data / part), settings.max_length) for part in ("train", "heldout")
    )
    config = config_of(context, tokenizer)
    compute = choose_compute(context, config)
    model = starting_model(context, config, compute)
    stream = Stream(pieces.sizes, settings.batch_tokens, context.recipe.seed)
    exact = choose_layout(context, model, settings.max_length)
    material = Material(
        stream, pieces.sizes, pieces.records, LanguageModeling(), exact.layout, int(pieces.sizes.max())
    )
    plan = make_plan(context, model, compute, material, exact.reason)
    say_plan(plan, model, material)
    held_records = heldout.records(context.few(list(range(len(heldout.sizes)))))
    held_tokens, held_bytes = int(heldout.sizes.sum()), heldout.shards.total_bytes

    def evaluate() -> dict[str, float]:
        metrics = evaluate_on(model, held_records, material.objective, plan)
        return {**metrics, "eval_bits_per_byte": bits_per_byte(metrics["eval_loss"], held_tokens, held_bytes)}

    result = run_training(context, model, plan, material, evaluate, f"Training {context.name}")
    save_model(model, context.stage.final, tokenizer)
    prompts = context.few(settings.sample_prompts)
    written = continue_texts(model, tokenizer, prompts, SAMPLE_TOKENS, context.recipe.seed)
    baselines = heldout_baselines(context)
    console.say(
        f"  held-out bits per byte: {result['after']['eval_bits_per_byte']:.3f}"
        + "".join(f" · {name} {value:.3f}" for name, value in baselines.items())
    )
    return {
        "kind": "pretrain",
        "baselines": baselines,
        "samples": [
            {"prompt": prompt, "reference": None, "before": "", "after": text}
            for prompt, text in zip(prompts, written, strict=True)
        ],
        **result,
    }


class Pieces:
    """Documents cut to the context length. A piece's last token is the next one's first, so each is predicted once."""

    def __init__(self, shards: TokenShards, max_length: int) -> None:
        self.shards = shards
        self._max_length = max_length
        predicted = shards.lengths - 1
        counts = -(-predicted // max_length)
        self._first = np.cumsum(counts)  # of the next document's pieces
        sizes = np.full(int(counts.sum()), max_length, dtype=np.int32)
        some = counts > 0  # a document of its EOS alone predicts nothing
        sizes[self._first[some] - 1] = (predicted - (counts - 1) * max_length)[some]
        self.sizes = sizes
        """Tokens that each piece predicts, which are also the tokens it takes in a row."""

    def records(self, indices: Sequence[int]) -> list[Record]:
        """The pieces as records of one chain, every token but the first a target."""
        made = []
        for index in indices:
            document = int(np.searchsorted(self._first, index, side="right"))
            before = int(self._first[document - 1]) if document else 0
            start, size = (index - before) * self._max_length, int(self.sizes[index])
            token = np.asarray(self.shards.document(document)[start : start + size + 1])
            scored = np.ones(len(token), dtype=np.bool_)
            scored[0] = False
            made.append(Record(index, (Chain(token.astype(np.int32), scored),)))
        return made


def checked_shards(folder: Path) -> TokenShards:
    """Opened, and read once against their checksums: damage would otherwise be trained on."""
    shards = TokenShards(folder)
    with console.progress(f"Checking {folder.name}", total=shards.total_tokens, unit="token") as bar:
        shards.verify(bar.advance)
    return shards


def config_of(context: Context, tokenizer: Tokenizer) -> ModelConfig | StockConfig:
    """The shape to train: the recipe's, or that of the model to go on from."""
    settings = context.settings
    if settings.model is not None:
        config = read_config(model_folder(context))
        check_vocabulary(tokenizer, config, f"stages.{context.name}.model")
        if settings.max_length > config.max_position_embeddings:
            raise UserError(
                f"max_length ({settings.max_length}) is beyond the model's context ({config.max_position_embeddings})",
                where=f"stages.{context.name}.max_length",
                fix=f"set max_length to at most {config.max_position_embeddings}",
            )
        return config
    shape = settings.architecture.model_dump()
    shape["head_dim"] = shape["head_dim"] or shape["hidden_size"] // shape["num_attention_heads"]
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return ModelConfig.from_hf(
        {**shape, **special, "vocab_size": len(tokenizer), "max_position_embeddings": settings.max_length},
        where=f"stages.{context.name}.architecture",
    )


def model_folder(context: Context) -> Path:
    """The whole model to go on from."""
    source = find_model(context, context.settings.model)
    if source.adapter is not None:
        raise UserError(
            f"stage {context.name} trains all weights, and '{context.settings.model}' is an adapter",
            where=f"stages.{context.name}.model",
            fix="name a merge stage, or merge it first: groundup merge",
        )
    return source.base


def starting_model(context: Context, config: ModelConfig | StockConfig, compute: Compute) -> LanguageModel:
    """Fresh weights, drawn from the recipe's seed, or those of the model to go on from."""
    dtype = getattr(torch, compute.dtype)
    if context.settings.model is not None:
        return load_model(model_folder(context), dtype, compute.device, trainable=True)
    assert isinstance(config, ModelConfig)
    return initialize(BaseLLM(config, dtype), context.recipe.seed).to(compute.device)


def heldout_baselines(context: Context) -> dict[str, float]:
    """gzip's and xz's bits per byte on the same held-out bytes, compressed as one file."""
    shards = context.recipe.stages[context.settings.from_]
    assert isinstance(shards, ShardsSettings)
    clean = context.input_stage(shards.from_, "clean")
    return compression_baselines("\n".join(texts(clean.data / "heldout.jsonl")).encode("utf-8"))
