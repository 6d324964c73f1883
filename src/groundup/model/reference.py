"""transformers' plain model over the same weights: what every layout must equal, and what is saved.

Nothing is copied: modules are built without parameters, then take ours. Buffers that no file holds, such as rotary
frequencies, are computed by the modules themselves as they are built.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.adopt import Precision, cast_at_use
from groundup.model.base import BaseLLM
from groundup.model.llm import LanguageModel
from groundup.model.stock import StockLLM, forget_longer_texts

SMALL_TOKENS = 12
"""What a limit is set to, to be passed by a short text. Shorter texts than this are in every probe too."""
WINDOW_KEYS = (
    "sliding_window",
    "attention_chunk_size",
    "window_size",
    "attention_window_size",
    "local_attention",
)


def stock_model(model: LanguageModel, dtype: torch.dtype | None = None) -> Any:
    """transformers' model of the same weights and the same meaning, in evaluation mode.

    dtype: of its weights, which are copied where they have another. Default: the very weights, and it computes in
    float32, widening each where it is used.
    """
    full = build_stock(hf_config(model), named_tensors(model), model.device, dtype)
    if dtype is None:
        cast_at_use(full, Precision(torch.float32))
    return full


def hf_config(model: LanguageModel) -> Any:
    """A fresh config object of transformers."""
    import transformers

    if isinstance(model, BaseLLM):
        raw = model.config.to_hf() | {"tie_word_embeddings": model.tied}
        return transformers.AutoConfig.for_model(**raw)
    assert isinstance(model, StockLLM)
    return type(model.config.hf).from_dict(model.config.hf.to_dict())


def named_tensors(model: LanguageModel) -> dict[str, Tensor]:
    """Every weight and stored buffer by transformers' name and in transformers' shape."""
    turned = model.transposed if isinstance(model, StockLLM) else frozenset()
    return {name: tensor.T if name in turned else tensor for name, tensor in model.state_dict().items()}


def build_stock(
    config: Any, tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype | None = None
) -> Any:
    """transformers' causal model of this config over these tensors, or over copies in `dtype`."""
    import transformers

    with parameters_on_meta():
        full = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    cast = {
        name: tensor.detach().to(dtype) if dtype and tensor.is_floating_point() else tensor.detach()
        for name, tensor in tensors.items()
    }
    full.load_state_dict(cast, strict=False, assign=True)
    full.tie_weights()
    left = [name for name, parameter in full.named_parameters() if parameter.is_meta]
    assert not left, f"{type(full).__name__} has weights that the model lacks: {left[:3]}"
    return full.to(device).eval().requires_grad_(False)


def float32_copy(model: LanguageModel) -> LanguageModel:
    """The same model over float32 copies of its weights."""
    if isinstance(model, BaseLLM):
        return copy.deepcopy(model).to(torch.float32)
    return StockLLM(build_stock(hf_config(model), named_tensors(model), model.device, torch.float32))


@torch.no_grad()
def stock_logits(full: Any, token_T: Tensor) -> Tensor:
    """[T, V] of one text by itself, as anybody would compute them."""
    forget_longer_texts(full)
    return full(input_ids=token_T[None], use_cache=False).logits[0].float()


def small_limits(model: LanguageModel, max_length: int) -> tuple[LanguageModel, list[str]]:
    """The same weights under windows, chunks and rope limits of SMALL_TOKENS tokens, and which were made small.

    Only limits that a text of `max_length` tokens passes. What a layout does beyond them is then seen on a short text.
    """
    if isinstance(model, BaseLLM):
        passed = [w for w in model.config.window_L if w is not None and SMALL_TOKENS < w < max_length]
        if not passed:
            return model, []
        windows = tuple(SMALL_TOKENS if window in passed else window for window in model.config.window_L)
        with torch.device("meta"):
            twin = BaseLLM(replace(model.config, window_L=windows), model.compute_dtype)
        twin.model.angle = model.model.angle
        twin.load_state_dict(model.state_dict(), assign=True)
        return twin.requires_grad_(False), [f"{max(passed):,} tokens (sliding_window)"]
    config = hf_config(model)
    changed = _shrink(config, max_length)
    if not changed:
        return model, []
    full = build_stock(config, named_tensors(model), model.device)
    return StockLLM(full, model.compute_dtype), changed


def _shrink(config: Any, max_length: int) -> list[str]:
    """Make the config's limits small; what was changed, for people."""
    changed = []
    for key in WINDOW_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, int) and not isinstance(value, bool) and SMALL_TOKENS < value < max_length:
            setattr(config, key, SMALL_TOKENS)
            changed.append(f"{value:,} tokens ({key})")
    outer = getattr(config, "rope_parameters", None) or {}
    for rope in [outer, *(value for value in outer.values() if isinstance(value, dict))]:
        kind = rope.get("rope_type")
        if kind == "dynamic" and config.max_position_embeddings < max_length:
            changed.append(f"{config.max_position_embeddings:,} tokens (dynamic rope)")
            config.max_position_embeddings = SMALL_TOKENS
        if kind == "longrope" and rope["original_max_position_embeddings"] < max_length:
            changed.append(f"{rope['original_max_position_embeddings']:,} tokens (LongRoPE)")
            rope["original_max_position_embeddings"] = SMALL_TOKENS
            if hasattr(config, "original_max_position_embeddings"):
                config.original_max_position_embeddings = SMALL_TOKENS
    return changed


@contextlib.contextmanager
def parameters_on_meta() -> Iterator[None]:
    """While open, new modules have parameters without memory, and true buffers."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(
                parameter.detach().to("meta"), requires_grad=parameter.requires_grad
            )

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
