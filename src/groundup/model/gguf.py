"""GGUF files, read by transformers: it knows each family's names, permutations and quantizations."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.errors import UserError


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A GGUF file's `config.json` and its weights, dequantized to float32, under Hugging Face's names.

    Raises:
        UserError: the file is no GGUF, or of a family that transformers cannot open.
    """
    import transformers

    _check_magic(path)
    log = transformers.utils.logging
    level = log.get_verbosity()
    log.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars of its own
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=torch.float32
            )
    except (ValueError, KeyError, NotImplementedError, ImportError, RuntimeError) as error:
        raise UserError(
            "transformers could not open a GGUF file",
            where=str(path),
            why=str(error).strip() or type(error).__name__,
            fix="use a GGUF of the llama, qwen2, qwen3 or mistral family, or the model's Hugging Face folder",
        ) from error
    finally:
        log.set_verbosity(level)
    raw = model.config.to_dict()
    raw.pop("quantization_config", None)
    return raw, model.state_dict()


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """While open, a GGUF file's header is parsed once, and over a plain array instead of a memory map's subclass.

    transformers parses it for the config, the weights and the tokenizer each, and builds the table of names anew for
    every module: for a small model that is most of the time that a conversion takes.
    """
    import gguf

    class PlainReader(gguf.GGUFReader):
        @property  # type: ignore[override]
        def data(self) -> np.ndarray:
            return self._plain

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._plain = np.asarray(mapped)

    quick = {
        "GGUFReader": functools.cache(PlainReader),
        "get_tensor_name_map": functools.cache(gguf.get_tensor_name_map),
    }
    own = {name: getattr(gguf, name) for name in quick}
    try:
        for name, value in quick.items():
            setattr(gguf, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(gguf, name, value)


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(
            "could not read a GGUF file", where=str(path), why=error.strerror or "", fix="check the path"
        ) from error
    if magic != b"GGUF":
        raise UserError(
            "not a GGUF file",
            where=str(path),
            why="it does not begin with the letters GGUF",
            fix="check the path, or download the file again",
        )
