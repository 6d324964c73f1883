"""Hugging Face folders in and out: safetensors, config.json, generation_config.json, the tokenizer's files; GGUF in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.errors import UserError
from groundup.model.base import BaseLLM
from groundup.model.config import ModelConfig
from groundup.model.gguf import read_gguf, read_once
from groundup.model.lora import has_lora
from groundup.store import files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def load_model(
    folder: Path | str,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    trainable: bool = False,
) -> BaseLLM:
    """A model from a Hugging Face folder.

    Args:
        folder: with config.json and safetensors, in one file or several with an index.
        dtype: what it computes in, "float32" or "bfloat16". Frozen weights are stored in it too.
        trainable: train all weights: they are float32, and cast where they are used.

    Raises:
        UserError: no weights, weights missing or of another shape, or a family that is not supported.
    """
    folder = Path(folder)
    config = ModelConfig.from_folder(folder)
    with _Weights(folder) as weights:
        model = _build(config, weights, folder, _dtype(dtype), torch.device(device), trainable)
    generation = folder / "generation_config.json"
    if generation.exists():
        model.generation_config = files.read_json(generation)
    return model


def save_model(
    model: BaseLLM,
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
    bos, eos, pad = (generation.get(f"{kind}_token_id") for kind in ("bos", "eos", "pad"))
    config = replace(
        model.config,
        bos_token_id=bos,
        eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
        pad_token_id=pad,
        tie_word_embeddings=model.tied,
    )

    def write(part: Path) -> None:
        save_file(_stored_state(model, stored), part / WEIGHTS, metadata={"format": "pt"})
        files.write_json(part / "config.json", config.to_hf() | {"dtype": str(stored).removeprefix("torch.")})
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


class _Weights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._file_of: dict[str, Any] = {}

    def __enter__(self) -> _Weights:
        for name in _weight_files(self.folder):
            path = self.folder / name
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(
                    "a weights file cannot be read",
                    where=str(path),
                    why=str(error),
                    fix="download or copy it again: it may be cut short",
                ) from error
            self._file_of |= dict.fromkeys(file.keys(), file)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _weight_files(folder: Path) -> list[str]:
    if (folder / INDEX).exists():
        return sorted(set(files.read_json(folder / INDEX)["weight_map"].values()))
    if (folder / WEIGHTS).exists():
        return [WEIGHTS]
    pickled = sorted(
        path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt"))
    )
    if pickled:
        raise UserError(
            f"the weights are stored as {pickled[0]}",
            where=str(folder),
            why="such files are pickles, which can run any code when opened",
            fix="get the model's safetensors version, or convert it once where you trust it: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    raise UserError(
        "the model folder has no weights",
        where=str(folder),
        why=f"neither {WEIGHTS} nor {INDEX} is there",
        fix="download the model again, or check the path",
    )


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


def _generation_config(model: BaseLLM, tokenizer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
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
