"""An adapter folded into its base model: a plain Hugging Face folder, compared with what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.hub.runs import only_scores
from groundup.infer.load import tokenizer_folder
from groundup.model import (
    LanguageModel,
    load_adapter,
    load_model,
    merge_lora,
    save_model,
    save_reward_model,
)
from groundup.model.reward import open_saved, score_tokens
from groundup.tokenizer import load_tokenizer

PROBE = "The quick brown fox jumps over 13 lazy dogs.\ndef add(a, b):\n    return a + b\n今天天气很好。"
PROBE_TOKENS = 64


def merge_adapter(
    adapter: Path, base: Path, out: Path, dtype: torch.dtype | str | None = None
) -> dict[str, Any]:
    """Add the adapter's product to the base model's weights, save the whole model in `out`, and read it back.

    adapter: a PEFT folder. base: the Hugging Face folder that it was trained on. dtype: of the saved weights;
    default: the base's. The sum is made in float32 and rounded once.

    A reward model's adapter makes a sequence classifier, whose only logit is the reward.

    Returns max_logit_difference, the largest difference of any logit on a short text between base with adapter and
    the saved model, both computed in float32 (so it shows what saving in bfloat16 rounds away); parameters; dtype.
    Raises UserError where the folders do not fit each other or `out` cannot be written.
    """
    if only_scores(adapter):
        return _merge_reward(adapter, base, out, dtype)
    tokenizer = load_tokenizer(tokenizer_folder([adapter, base]))
    model = load_model(base, torch.float32)
    token_T = probe_tokens(tokenizer, model)
    load_adapter(model, adapter)
    attached_TV = model.logits(token_T)
    merge_lora(model)
    save_model(model, out, tokenizer, dtype=dtype)
    saved = load_model(out, torch.float32)
    return {
        "max_logit_difference": float((saved.logits(token_T) - attached_TV).abs().max()),
        "parameters": sum(parameter.numel() for parameter in saved.parameters()),
        "dtype": str(saved.source_dtype).removeprefix("torch."),
    }


def _merge_reward(adapter: Path, base: Path, out: Path, dtype: torch.dtype | str | None) -> dict[str, Any]:
    tokenizer = load_tokenizer(tokenizer_folder([adapter, base]))
    model = load_model(base, torch.float32)
    token_T = probe_tokens(tokenizer, model)
    load_adapter(model, adapter, reward=True)
    attached = score_tokens(model, token_T)
    merge_lora(model)
    stored = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    save_reward_model(model, out, tokenizer, stored)
    saved = open_saved(out)
    return {
        "max_logit_difference": abs(score_tokens(saved, token_T) - attached),
        "parameters": sum(parameter.numel() for parameter in saved.parameters()),
        "dtype": str(stored or model.source_dtype).removeprefix("torch."),
    }


def probe_tokens(tokenizer: Any, model: LanguageModel) -> Tensor:
    """The probe text as int64 [T], as much as the model takes."""
    tokens = tokenizer(PROBE)["input_ids"][: min(PROBE_TOKENS, model.config.max_position_embeddings)]
    return torch.tensor(tokens, device=model.device)
