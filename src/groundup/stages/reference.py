"""The model that a policy is held close to: which one it is, and what it says of every row, computed once.

What it said is kept in the run under a hash of all that it depends on: the reference's very weights, the tokens of the
rows, dtype, layout and device. So another stage, a second run or one that goes on reads the same numbers, and nothing
else can be taken for them: not those of a model that was merged, trained on or changed since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import xxhash

from groundup import console
from groundup.batch import Batch
from groundup.engine import probe
from groundup.errors import UserError
from groundup.eval import record_logps
from groundup.infer.load import check_vocabulary
from groundup.machine.plan import Plan
from groundup.model import (
    LanguageModel,
    StockLLM,
    has_lora,
    load_adapter,
    load_model,
    read_config,
    using_adapter,
)
from groundup.model.reference import hf_config
from groundup.stages.context import Context
from groundup.stages.models import ModelFolders, find_model
from groundup.store.files import fingerprint, read_json, write_json
from groundup.tokenizer import Tokenizer, load_tokenizer

Logps = dict[int, tuple[float, ...]]
"""Log-probability of each sequence, by record."""
Rows = Callable[[str], Iterator[Batch]]
"""All rows in a layout; each call gives the same."""


@dataclass(frozen=True)
class Reference:
    """start: the model as the stage begins. off: the same, its adapter switched off. folder: a second model."""

    kind: Literal["start", "off", "folder"]
    said: str
    """For people, and the plan."""
    folders: ModelFolders | None = None


def choose_reference(context: Context, source: ModelFolders, tokenizer: Tokenizer) -> Reference | None:
    """What the recipe means, with no second model where one set of weights serves; None for a loss without one.

    Raises UserError where the reference reads other tokens than the policy.
    """
    settings = context.settings
    if not settings.needs_reference:
        return None
    adapted = settings.lora is not False
    if settings.reference is None:
        if adapted and source.adapter is None:
            return Reference("off", "this model with its adapter switched off")
        return Reference("start", "this model as the stage begins, before its first step")
    named = find_model(context, settings.reference)
    same_base = named.base.resolve() == source.base.resolve()
    if same_base and named.adapter is None and adapted:
        return Reference("off", f"{settings.reference}: this model with its adapter switched off")
    if same_base and _resolved(named) == _resolved(source):
        return Reference(
            "start", f"{settings.reference}: this model as the stage begins, before its first step"
        )
    where = f"stages.{context.name}.reference"
    check_vocabulary(tokenizer, read_config(named.base), where)
    if load_tokenizer(named.tokenizer).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"the reference {settings.reference} has another tokenizer than {settings.from_}",
            where=where,
            why="log-probabilities of the same text can only be compared where its tokens are the same",
            fix="name a reference with the same tokenizer, or leave reference out",
        )
    said = f"{settings.reference}: a second model, in memory only while its log-probabilities are computed"
    return Reference("folder", said, named)


def _resolved(folders: ModelFolders) -> tuple[Any, Any]:
    return folders.base.resolve(), folders.adapter and folders.adapter.resolve()


def reference_logps(
    context: Context, reference: Reference, model: LanguageModel, plan: Plan, rows: Rows, total: int
) -> Logps:
    """What the reference says of every sequence of `rows`, out of the run's cache where it is there.

    To be called before the first step and before a checkpoint is loaded: `model` is what the stage begins with.
    total: records, for people.
    """
    if reference.folders is None:
        off = reference.kind == "off"
        assert not off or has_lora(model), "the model has no adapter to switch off"
        with using_adapter(model, None) if off else nullcontext():
            return _known_or_computed(context, reference, model, plan, rows, total, without_adapter=off)
    second = load_model(reference.folders.base, plan.dtype, plan.device)
    if isinstance(second, StockLLM):
        probe(
            second, context.settings.max_length
        )  # which sets its layout, perhaps another one than the policy's
    if reference.folders.adapter is not None:
        load_adapter(second, reference.folders.adapter)
    return _known_or_computed(context, reference, second, plan, rows, total)


def _known_or_computed(
    context: Context,
    reference: Reference,
    model: LanguageModel,
    plan: Plan,
    rows: Rows,
    total: int,
    without_adapter: bool = False,
) -> Logps:
    layout = model.layout if isinstance(model, StockLLM) else plan.layout
    content = {
        "weights": weights_hash(model, without_adapter),
        "rows": rows_hash(rows(layout)),
        "dtype": plan.dtype,
        "layout": layout,
        "device": plan.device,
    }
    path = context.run.reference_logps / f"{fingerprint(content)}.json"
    if (known := _read(path)) is not None:
        console.say("  the reference's log-probabilities are known already")
        return known
    found = record_logps(model, rows(layout), device=plan.device, total=total, title="Reference")
    broken = next((index for index, sums in found.items() if not all(map(math.isfinite, sums))), None)
    if broken is not None:
        raise UserError(
            f"the reference gives row {broken} a log-probability that is not a finite number",
            where=f"stages.{context.name}",
            why=f"the reference is {reference.said}",
            fix="set dtype: float32, or check that model",
        )
    kept = {str(index): sums for index, sums in found.items()}
    write_json(path, {**content, "reference": reference.said, "check": fingerprint(kept), "logps": kept})
    return found


def _read(path: Any) -> Logps | None:
    """What an earlier stage wrote, if it is whole."""
    if not path.exists():
        return None
    try:
        kept = read_json(path)
        if fingerprint(kept["logps"]) == kept["check"]:
            return {int(index): tuple(sums) for index, sums in kept["logps"].items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        pass
    console.warn(f"{path} is damaged; the reference is computed again")
    return None


def weights_hash(model: LanguageModel, without_adapter: bool = False) -> str:
    """xxh3, 128 bits, of every weight's name, dtype and bytes, and of what the config says."""
    config = hf_config(model).to_json_string(use_diff=False)
    about = {"config": config, "lora": None if without_adapter else model.lora}
    digest = xxhash.xxh3_128(fingerprint(about).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if without_adapter and ".lora_" in name:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        _add(digest, tensor)
    return digest.hexdigest()


def rows_hash(rows: Iterator[Batch]) -> str:
    """xxh3, 128 bits, of the tokens of rows, how they are cut into segments, and what is predicted from where."""
    digest = xxhash.xxh3_128()
    for row in rows:
        shape = (row.start_S, row.length_S, row.parent_S, row.reads_Q, row.sequences_G, row.record_Q)
        for tensor in (row.token_T, row.position_T, *shape, row.source_N, row.target_N):
            digest.update(f"{tuple(tensor.shape)}".encode())
            _add(digest, tensor)
    return digest.hexdigest()


def _add(digest: Any, tensor: torch.Tensor) -> None:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)
