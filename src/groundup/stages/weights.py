"""What training stages share of weights: the model as a stage begins, and its result."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup import console
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import (
    LanguageModel,
    ModelConfig,
    StockConfig,
    adapter_settings,
    attach_lora,
    has_lora,
    load_adapter,
    load_model,
    merge_lora,
    save_adapter,
    save_model,
    save_reward_model,
)
from groundup.stages.context import Context
from groundup.stages.models import ModelFolders
from groundup.stages.rows import Rows
from groundup.stages.training import Compute
from groundup.store.files import publish_folder
from groundup.tokenizer import Tokenizer


def check_lengths(context: Context, config: ModelConfig | StockConfig, rows: Rows) -> None:
    """Raise UserError where a row is longer than the model's context."""
    chains = [chain for record in rows.train + rows.heldout for chain in record.chains]
    longest = max(len(chain.token) - int(chain.token[-1] < 0) for chain in chains)  # -1 is no token
    if longest > config.max_position_embeddings:
        raise UserError(
            f"a row has {longest} tokens, and the model's context ends at {config.max_position_embeddings}",
            where=f"stages.{context.name}.max_length",
            fix=f"set max_length to at most {config.max_position_embeddings}",
        )


def base_model(context: Context, source: ModelFolders, compute: Compute) -> LanguageModel:
    """The weights that the stage begins with, without an adapter."""
    full = context.settings.lora is False
    # An adapter is folded into float32 weights.
    dtype = "float32" if full and source.adapter else compute.dtype
    return load_model(source.base, dtype, compute.device, trainable=full)


def starting_model(
    context: Context, model: LanguageModel, source: ModelFolders, compute: Compute
) -> LanguageModel:
    """The model as the stage begins: with a fresh adapter, the adapter that it goes on with, or all weights."""
    settings = context.settings
    if settings.lora is False:
        if source.adapter:
            load_adapter(model, source.adapter)
            merge_lora(model)
            for parameter in model.parameters():
                parameter.requires_grad_(True)
            model.compute_dtype = getattr(torch, compute.dtype)
        return model
    if source.adapter is None:
        attach_lora(model, settings.lora, seed=context.recipe.seed)
        return model
    existing = adapter_settings(source.adapter)
    # The resolved recipe of a run writes defaults out, so a default asks for nothing.
    if settings.lora != LoraSettings() and not same_shape(existing, settings.lora):
        raise UserError(
            f"stage {context.name} goes on with an adapter of another shape: {existing}, not {settings.lora}",
            where=f"stages.{context.name}.lora",
            fix="leave lora out to go on with the adapter as it is, or put a merge stage between",
        )
    console.say(
        f"  going on with the adapter that is there: r {existing.r}, lora_alpha {existing.lora_alpha:g}"
    )
    load_adapter(model, source.adapter, trainable=True)
    return model


def same_shape(one: LoraSettings, other: LoraSettings) -> bool:
    """Whether an adapter made with one setting can go on with the other."""
    targets = [sorted(each.target_modules) for each in (one, other) if each.target_modules != "all-linear"]
    return (one.r, one.scaling) == (other.r, other.scaling) and (len(targets) < 2 or targets[0] == targets[1])


def save_result(
    context: Context, model: LanguageModel, source: ModelFolders, tokenizer: Tokenizer, reward: bool = False
) -> None:
    """Write `final/`, whole or not at all. reward: as a sequence classifier."""
    if not has_lora(model):
        save = save_reward_model if reward else save_model
        save(model, context.stage.final, tokenizer)
        return

    def write(folder: Path) -> None:
        save_adapter(model, folder, source.base_name, reward=reward)
        tokenizer.save_pretrained(folder)

    publish_folder(context.stage.final, write)
