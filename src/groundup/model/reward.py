"""Reward models: a decoder with a scalar head, as transformers' sequence classifiers with one label have it.

Their pooling takes the last token that is not padding. So the padding that is saved is a token that no text ends with.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.batch import Chain, Record, pack_step
from groundup.errors import UserError
from groundup.model.adapter import load_adapter
from groundup.model.adopt import Precision, cast_at_use
from groundup.model.base import BaseLLM
from groundup.model.config import ModelConfig
from groundup.model.hf import load_model
from groundup.model.llm import LanguageModel
from groundup.model.lora import merge_lora
from groundup.model.reference import hf_config, named_tensors, parameters_on_meta
from groundup.model.score import Score
from groundup.model.stock import StockLLM
from groundup.model.stock_config import StockConfig
from groundup.model.stock_files import quiet
from groundup.store import files


def attach_score(model: LanguageModel, seed: int) -> None:
    """Give the model a fresh scalar head, trained; its output head is not, where that has weights of its own.

    To be called behind `attach_lora`, which freezes all that is there.
    """
    score = Score(model.config.hidden_size, model.device)
    model.score = score.initialize(model.config.initializer_range, seed)
    if not model.tied:
        model.head.requires_grad_(False)


def check_classifier(config: ModelConfig | StockConfig, where: str) -> None:
    """Raise UserError where transformers has no sequence classifier of this family: nobody could open the result."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    if config.model_type not in CLASSIFIERS:
        raise UserError(
            f"a {config.model_type} model cannot become a reward model",
            where=where,
            why="transformers has no sequence classifier of this family, so the result could not be opened",
            fix="choose a model of another family, such as llama, qwen2, qwen3, mistral or gpt2",
        )


def choose_padding(tokenizer: Any, vocab_size: int, ends: Collection[int]) -> None:
    """Make a token that no text ends with the tokenizer's padding, on the right. ends: last tokens of texts.

    Raises:
        UserError: there is none.
    """
    never = {*ends, tokenizer.eos_token_id}
    special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    named = [tokenizer.pad_token_id]
    named += [number for number, token in special.items() if "pad" in token.lower()]
    named += [tokenizer.unk_token_id, tokenizer.bos_token_id, *special]
    for number in named:
        if number is not None and number < vocab_size and number not in never:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(number)
            tokenizer.padding_side = "right"
            return
    raise UserError(
        "the tokenizer has no token to pad with",
        why="a reward is read at the last token that is not padding, and every special token may end a text",
        fix="add a special token such as <|pad|> to the tokenizer and the model",
    )


def save_reward_model(
    model: LanguageModel, folder: Path | str, tokenizer: Any, dtype: torch.dtype | None = None
) -> None:
    """Write a folder that plain `AutoModelForSequenceClassification` opens; whole or not at all.

    The tokenizer's padding must be one that no text ends with (`choose_padding`). dtype: of the stored weights;
    default: bfloat16 where the model came in it, else float32.
    """
    full = stock_classifier(model, tokenizer.pad_token_id, dtype or model.source_dtype)

    def write(part: Path) -> None:
        with quiet():
            full.save_pretrained(part)
        tokenizer.save_pretrained(part)

    files.publish_folder(Path(folder), write)


def stock_classifier(model: LanguageModel, pad_token_id: int, dtype: torch.dtype | None = None) -> Any:
    """transformers' sequence classifier of the same weights, in evaluation mode.

    dtype: of its weights. Default: the very weights, and it computes in float32.
    """
    import transformers

    assert model.score is not None
    config = hf_config(model)
    config.num_labels, config.pad_token_id = 1, pad_token_id
    with parameters_on_meta():
        full = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    wanted = {name for name, _ in full.named_parameters()}
    tensors = {name: tensor.detach() for name, tensor in _without_head(model).items()}
    if missing := sorted(wanted - tensors.keys()):
        raise UserError(
            f"{type(full).__name__} keeps its weights under other names",
            why=f"it has {missing[0]}, which the language model lacks",
            fix="choose a model of another family, such as llama, qwen2, qwen3, mistral or gpt2",
        )
    if dtype:
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    full.load_state_dict(tensors, strict=False, assign=True)
    if dtype is None:
        cast_at_use(full, Precision(torch.float32))
    return full.to(model.device).eval().requires_grad_(False)


def classifier_from_adapter(base: Path | str, adapter: Path | str, pad_token_id: int) -> Any:
    """transformers' sequence classifier, float32, of a language model's folder and a reward model's adapter on it."""
    model = load_model(base, torch.float32)
    load_adapter(model, adapter, reward=True)
    return stock_classifier(merge_lora(model), pad_token_id)


def open_saved(folder: Path | str) -> Any:
    """What `save_reward_model` wrote, as anybody opens it, in float32."""
    import transformers

    with quiet():
        full = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    return full.eval()


@torch.no_grad()
def score_tokens(model: LanguageModel | Any, token_T: Tensor) -> float:
    """The reward of one text: by our model, or by transformers' classifier."""
    if not isinstance(model, LanguageModel):
        return float(model(input_ids=token_T[None].to(model.device)).logits[0, 0])
    token = np.append(token_T.cpu().numpy(), -1)  # the only read is at the last token, and predicts nothing
    record = Record(0, (Chain(token, token < 0),))
    (row,) = pack_step([record], len(token), "packed")
    value_N = model(row.to(model.device), frozenset({"value"})).value_N
    assert value_N is not None
    return float(value_N[0])


def _without_head(model: LanguageModel) -> dict[str, Tensor]:
    """The weights by transformers' names, without the language model's output head."""
    name = "lm_head" if isinstance(model, BaseLLM) else _head_name(model)
    return {key: tensor for key, tensor in named_tensors(model).items() if not key.startswith(f"{name}.")}


def _head_name(model: LanguageModel) -> str:
    assert isinstance(model, StockLLM)
    return model.head_name
