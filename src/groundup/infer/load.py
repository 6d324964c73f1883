"""From a model's name to a model that answers: weights, adapter, tokenizer, and the chat settings of its run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup import hub
from groundup.config.schema import ChatSettings
from groundup.engine import probe as probe_layout
from groundup.errors import UserError
from groundup.hub import ModelSource
from groundup.infer.origin import chat_settings, planned_dtype, planned_layout, run_of
from groundup.machine import choose_dtype, measure_dtypes, probe
from groundup.model import (
    LanguageModel,
    ModelConfig,
    StockConfig,
    StockLLM,
    convert_gguf,
    load_adapter,
    load_model,
    merge_lora,
    read_config,
)
from groundup.store import Run, files
from groundup.tokenizer import chat as templates
from groundup.tokenizer import load_tokenizer
from groundup.tokenizer.load import FILES

MEASURE_SECONDS = 1.0
PROBED_TOKENS = 4096  # a chat or an evaluation is hardly longer
MEASURE_TOKENS = 16  # rows of a product while answers are generated: few


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer."""

    model: LanguageModel
    tokenizer: Any
    name: str  # as people wrote it
    chat: ChatSettings
    stop_tokens: tuple[int, ...]
    folder: Path  # of its weights, or of its adapter
    layout: str = "shared"  # of rows, exact for this model

    @property
    def has_template(self) -> bool:
        """Whether it knows turns; a base model only continues text."""
        return bool(self.chat.chat_template or getattr(self.tokenizer, "chat_template", None))

    @property
    def context_tokens(self) -> int:
        return self.model.config.max_position_embeddings

    def with_system_prompt(self, text: str) -> Loaded:
        """The same model, spoken to under another system prompt."""
        return replace(self, chat=self.chat.model_copy(update={"system_prompt": text}))


def load_for_inference(source: ModelSource | str, run: Run | None = None, dtype: str = "auto") -> Loaded:
    """Load a folder, an adapter with its base, or a GGUF file (converted once).

    run: where the chat settings come from and conversions go; default: the run whose folder the model lies in,
    so that training, evaluation and chat render alike. dtype: "float32", "bfloat16", or "auto": what the run
    planned, else the faster one here. An adapter stays attached, in float32, as it was trained. Raises UserError.
    """
    if isinstance(source, str):
        source = hub.resolve_model(source, run)
    run = run or run_of(source.path)
    with hub.cache_beside(run.downloads) if run else nullcontext():
        base, adapters = base_of(source)
    folder = plain_folder(base, run)
    device = probe().device
    if dtype == "auto":
        dtype = planned_dtype(run, source.path) or fast_dtype(folder, device)
    model = load_model(folder, dtype, device, trainable=False)
    layout = _layout(model, planned_layout(run, source.path))
    for number, adapter in enumerate(adapters):
        if number:
            merge_lora(model)
        load_adapter(model, adapter)
    model.eval()
    tokenizer = load_tokenizer(tokenizer_folder([*reversed(adapters), folder]))
    check_vocabulary(tokenizer, model.config, str(folder))
    chat = chat_settings(run)
    if chat.chat_template and not Path(chat.chat_template).expanduser().is_file() and tokenizer.chat_template:
        chat = chat.model_copy(update={"chat_template": None})  # trained models carry it in their tokenizer
    stop_tokens = {*templates.stop_tokens(tokenizer, chat), *_declared_stop_tokens(model)}
    return Loaded(model, tokenizer, source.name, chat, tuple(sorted(stop_tokens)), source.path, layout)


def _layout(model: LanguageModel, planned: str | None) -> str:
    """The layout that the model was trained in, else the probe's; our own decoder shares in every case."""
    if not isinstance(model, StockLLM):
        return planned or "shared"
    if planned is None:
        return probe_layout(model, min(model.config.max_position_embeddings, PROBED_TOKENS)).layout
    model.layout = planned
    return planned


def check_vocabulary(tokenizer: Any, config: ModelConfig | StockConfig, where: str) -> None:
    """Raise UserError where the tokenizer has ids that the model has no embedding for."""
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} tokens, and the model's embedding {config.vocab_size:,}",
            where=where,
            why="the tokens beyond it would have no meaning, and end training midway",
            fix="use the model's own tokenizer, or resize the model's embedding before",
        )


def _declared_stop_tokens(model: LanguageModel) -> Iterable[int]:
    """What generation_config.json says ends a text; some models name several tokens there."""
    declared = model.generation_config.get("eos_token_id")
    return () if declared is None else [declared] if isinstance(declared, int) else declared


def base_of(source: ModelSource) -> tuple[ModelSource, list[Path]]:
    """The plain model below, and the adapters on it in the order they are put on."""
    adapters: list[Path] = []
    while source.kind == "adapter":
        if source.path in adapters:
            raise UserError(f"The adapter {source.path} names itself as its base.", fix="name its base model")
        adapters.insert(0, source.path)
        source = hub.resolve_model(source.base or "", relative_to=source.path)
    return source, adapters


def plain_folder(source: ModelSource, run: Run | None) -> Path:
    """A Hugging Face folder of the model; a GGUF file is converted once, into the run or a cache."""
    if source.kind == "folder":
        return source.path
    name = f"{source.path.stem}-{files.hash_file(source.path)[:8]}"
    folder = (run.models if run else cache_folder()) / name
    if not folder.is_dir():
        convert_gguf(source.path, folder)
    return folder


def cache_folder() -> Path:
    """Where conversions go that belong to no run."""
    outer = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(outer) if outer else Path.home() / ".cache") / "groundup" / "models"


def tokenizer_folder(folders: list[Path]) -> Path:
    """The first of the folders that holds a tokenizer; the last one if none does, for its error message."""
    return next(
        (folder for folder in folders if any((folder / name).is_file() for name in FILES)), folders[-1]
    )


def fast_dtype(folder: Path, device: str) -> str:
    """The dtype that multiplies this model's matrices faster here, by a short measurement."""
    shape = read_config(folder)
    inner, outer = shape.num_attention_heads * shape.head_dim, shape.hidden_size
    sides = [(outer, inner), (outer, shape.intermediate_size), (shape.intermediate_size, outer)]
    return choose_dtype(measure_dtypes([(MEASURE_TOKENS, *side) for side in sides], MEASURE_SECONDS, device))[
        0
    ]
