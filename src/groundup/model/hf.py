"""Hugging Face folders in and out: safetensors, config.json, generation_config.json, the tokenizer's files; GGUF in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from groundup.errors import UserError
from groundup.hub.runs import only_scores
from groundup.model.adapter import scores_only
from groundup.model.base import BaseLLM
from groundup.model.config import ModelConfig
from groundup.model.gguf import read_gguf, read_once
from groundup.model.llm import LanguageModel
from groundup.model.lora import has_lora
from groundup.model.stock import StockLLM
from groundup.model.stock_config import StockConfig
from groundup.model.stock_files import load_stock, write_stock
from groundup.model.weights import WEIGHTS, Weights, check_finite
from groundup.store import files

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def read_config(folder: Path | str) -> ModelConfig | StockConfig:
    """The shape of a folder's model. Raises UserError where there is no causal text model that can be trained."""
    path = Path(folder) / "config.json"
    raw = files.read_json(path) if path.exists() else {}
    check_answers(Path(folder))
    if raw and not ModelConfig.covers(raw):
        return StockConfig.from_folder(folder)
    return ModelConfig.from_folder(folder)


def check_answers(folder: Path) -> None:
    """Raise UserError where the folder holds a reward model, or the adapter of one: it cannot answer."""
    if only_scores(folder):
        raise scores_only(folder)


def load_model(
    folder: Path | str,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    trainable: bool = False,
) -> LanguageModel:
    """A model from a Hugging Face folder: ours where we have the family, else transformers' own layers.

    Args:
        folder: with config.json and safetensors, in one file or several with an index.
        dtype: what it computes in, "float32" or "bfloat16". Frozen weights are stored in it too.
        trainable: train all weights: they are float32, and cast where they are used.

    Raises:
        UserError: no weights; weights missing, of another shape, or not finite; no causal text model that
            transformers knows.
    """
    folder = Path(folder)
    config = read_config(folder)
    model: LanguageModel
    if isinstance(config, StockConfig):
        model = load_stock(folder, config, _dtype(dtype), torch.device(device), trainable)
    else:
        with Weights(folder) as weights:
            model = _build(config, weights, folder, _dtype(dtype), torch.device(device), trainable)
    check_finite(model.named_parameters(), folder)
    generation = folder / "generation_config.json"
    if generation.exists():
        model.generation_config = files.read_json(generation)
    return model


def save_model(
    model: LanguageModel,
    folder: Path | str,
    tokenizer: Any,
    *,
    generation_config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
) -> None:
    """Write a folder that plain `AutoModelForCausalLM` and `AutoTokenizer` open; whole or not at all.

    The tokens that begin and end a text are the tokenizer's, in config.json and generation_config.json alike, unless
    `generation_config` (whose keys come on top of what the model was loaded with) says otherwise.

    Args:
        dtype: of the stored weights; default bfloat16 where the model came in it, else float32.
    """
    assert not has_lora(model), "merge the adapter first, or save it with save_adapter"
    stored = _dtype(dtype) if dtype is not None else model.source_dtype
    generation = _generation_config(model, tokenizer, generation_config or {})
    special = {f"{kind}_token_id": generation.get(f"{kind}_token_id") for kind in ("bos", "eos", "pad")}

    def write(part: Path) -> None:
        if isinstance(model, StockLLM):
            write_stock(model, part, stored, special)
        else:
            assert isinstance(model, BaseLLM)
            save_file(_stored_state(model, stored), part / WEIGHTS, metadata={"format": "pt"})
            raw = replace(model.config, tie_word_embeddings=model.tied).to_hf()
            files.write_json(
                part / "config.json", raw | special | {"dtype": str(stored).removeprefix("torch.")}
            )
        files.write_json(part / "generation_config.json", generation)
        tokenizer.save_pretrained(part)

    files.publish_folder(Path(folder), write)


def convert_gguf(path: Path | str, folder: Path | str) -> None:
    """A GGUF file to a Hugging Face folder, dequantized by transformers into float32, with its tokenizer.

    Raises:
        UserError: the file is no GGUF, or of a family that is not supported.
    """
    from groundup.tokenizer import load_tokenizer

    path = Path(path)
    with read_once():
        raw, state = read_gguf(path)
        tokenizer = load_tokenizer(path)
    model = _build(
        ModelConfig.from_hf(raw, where=str(path)), state, path, torch.float32, torch.device("cpu"), False
    )
    save_model(model, folder, tokenizer)


def _build(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    where: Path,
    dtype: torch.dtype,
    device: torch.device,
    trainable: bool,
) -> BaseLLM:
    """Fill a model's parameters, one tensor at a time."""
    if config.tie_word_embeddings and HEAD in weights and not torch.equal(weights[HEAD], weights[EMBEDDING]):
        config = replace(config, tie_word_embeddings=False)  # as transformers does: the stored weights decide
    with torch.device("meta"):
        model = BaseLLM(config, dtype)
    expected = dict(model.named_parameters())
    _check_names(expected, weights, where, config)
    filled: dict[str, Tensor] = {}
    for name, parameter in expected.items():
        tensor = weights[name]
        if tensor.shape != parameter.shape:
            raise UserError(
                f"the weight {name} has shape {list(tensor.shape)}, not {list(parameter.shape)}",
                where=str(where),
                why="config.json and the weights do not belong together",
                fix="copy the config.json that came with the weights",
            )
        filled[name] = tensor.to(device, torch.float32 if trainable else dtype)
        if name == EMBEDDING:
            model.source_dtype = torch.bfloat16 if tensor.dtype == torch.bfloat16 else torch.float32
    model.load_state_dict(filled, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.requires_grad_(trainable).to(device)


def _check_names(expected: Iterable[str], weights: Iterable[str], where: Path, config: ModelConfig) -> None:
    found, wanted = set(weights), set(expected)
    if config.tie_word_embeddings:
        found.discard(HEAD)
    unknown = sorted(name for name in found - wanted if not name.endswith("rotary_emb.inv_freq"))
    missing = sorted(wanted - found)
    if missing or unknown:
        problem, names = ("lacks", missing) if missing else ("has unexpected", unknown)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(
            f"the model {problem} weights: {', '.join(names[:3])}{more}",
            where=str(where),
            why=f"config.json says {config.family.architecture}, whose weights have fixed names",
            fix="download the model again, or choose one with a language modelling head",
        )


def _stored_state(model: BaseLLM, dtype: torch.dtype) -> dict[str, Tensor]:
    """Standard names; a tied head is not written twice."""
    return {
        name: parameter.detach().to("cpu", dtype).contiguous() for name, parameter in model.named_parameters()
    }


def _generation_config(model: LanguageModel, tokenizer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    own = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad")}
    known = {f"{kind}_token_id": getattr(model.config, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    layers = (known, {k: v for k, v in own.items() if v is not None}, model.generation_config, given)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    merged.pop("_from_model_config", None)
    return merged


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype
