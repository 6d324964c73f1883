"""Folders of models that transformers runs, in and out: its own names, and its own way to store them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from groundup import console
from groundup.errors import UserError
from groundup.model.reference import stock_model
from groundup.model.stock import StockLLM
from groundup.model.stock_config import StockConfig
from groundup.model.weights import Weights
from groundup.store import files

SHOWN_NAMES = 3


def load_stock(
    folder: Path, config: StockConfig, dtype: torch.dtype, device: torch.device, trainable: bool
) -> StockLLM:
    """A model of a family that transformers alone knows; arguments as of `hf.load_model`. Raises UserError."""
    import transformers

    if getattr(config.hf, "quantization_config", None):
        raise UserError(
            "the model is stored quantized",
            where=str(folder / "config.json"),
            why="config.json has a quantization_config; training starts from plain weights here",
            fix="use the model's unquantized version",
        )
    with Weights(folder) as weights:  # which says what is wrong with the files, better than transformers does
        stored_dtype = weights.dtype()
    try:
        with quiet():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config.hf,
                dtype=torch.float32 if trainable else dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(
            f"transformers cannot open this {config.model_type} model",
            where=str(folder),
            why=str(error).strip() or type(error).__name__,
            fix="check that config.json belongs to these weights, or download the model again",
        ) from error
    full, report = loaded
    _check_report(report, folder, type(full).__name__)
    model = StockLLM(full, dtype).to(device).requires_grad_(trainable)
    model.source_dtype = torch.bfloat16 if stored_dtype == "BF16" else torch.float32
    return model


def write_stock(model: StockLLM, folder: Path, dtype: torch.dtype, special: Mapping[str, Any]) -> None:
    """config.json and weights, written by transformers under the names that it stores them.

    special: `bos_token_id` and its like, for config.json.
    """
    full = stock_model(model, dtype)
    with quiet():
        full.save_pretrained(folder)
    path = folder / "config.json"
    files.write_json(path, {**files.read_json(path), **special, "dtype": str(dtype).removeprefix("torch.")})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and notes."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_report(report: Mapping[str, Any], folder: Path, kind: str) -> None:
    """Raise UserError where weights are missing; warn where some have no place."""
    wrong = {*report["missing_keys"], *(name for name, *_ in report.get("mismatched_keys") or ())}
    if wrong:
        raise UserError(
            f"the model lacks weights: {_some(wrong)}",
            where=str(folder),
            why=f"config.json says {kind}, whose weights have fixed names and shapes",
            fix="download the model again, or choose one with a language modelling head",
        )
    if report["unexpected_keys"]:
        console.warn(f"{folder}: {kind} has no place for the weights {_some(set(report['unexpected_keys']))}")


def _some(names: set[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(sorted(names)[:SHOWN_NAMES]) + more
