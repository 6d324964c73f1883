"""The memory estimate against what autograd really keeps, and what the plan does when memory is short."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.machine.estimate import (
    KEPT_PROBABILITIES,
    SHARE_OF_MEMORY,
    activation_bytes,
    planned_memory_bytes,
    weight_bytes,
)
from groundup.machine.plan import ROW_STEP_TOKENS, choose_rows
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize
from groundup.objective import LanguageModeling
from groundup.stages.training import workload_of

SHAPE = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
LENGTH = 500


def built(dtype: torch.dtype, lora: bool) -> BaseLLM:
    model = initialize(BaseLLM(ModelConfig.from_hf(SHAPE), dtype), 0)
    if lora:
        attach_lora(model, LoraSettings(r=8))
    return model


def kept_bytes(model: BaseLLM) -> tuple[int, int]:
    """(what the backward of one row keeps besides the parameters, tokens of the row)"""
    draw = np.random.default_rng(0)
    scored = np.r_[False, np.ones(LENGTH, bool)]
    tokens = [draw.integers(0, 128, LENGTH + 1).astype(np.int32) for _ in range(3)]
    (row,) = pack_step([Record(i, (Chain(token, scored),)) for i, token in enumerate(tokens)], 4096)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        LanguageModeling().loss(model(row), row)[0].backward()
    return sum(kept.values()), len(row.token_T)


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activations_are_estimated_within_a_fifth(dtype, lora):
    model = built(dtype, lora)
    work = workload_of(model, str(dtype).removeprefix("torch."))
    kept, tokens = kept_bytes(model)
    cast = 0 if lora or dtype == torch.float32 else 2 * work.parameters
    estimate = activation_bytes(work, tokens, LENGTH) + cast
    assert 0.95 * kept <= estimate <= 1.2 * kept, (kept, estimate)


def test_recomputing_keeps_little():
    model = built(torch.float32, lora=True)
    work = workload_of(model, "float32")
    plain, tokens = kept_bytes(model)
    model.recompute = True
    kept, _ = kept_bytes(model)
    # The backward makes one layer at a time whole, which the hooks see as well.
    estimate = activation_bytes(work, tokens, LENGTH, recompute=True)
    assert kept < plain and estimate < 0.4 * plain


def machine(available: float) -> SimpleNamespace:
    return SimpleNamespace(available_bytes=available, gpus=[])


def test_probabilities_that_are_not_kept_take_no_memory():
    work = workload_of(built(torch.float32, lora=True), "float32")
    longest = 2 * KEPT_PROBABILITIES // (work.heads * 4096)
    few, many = (activation_bytes(work, 4096, length) for length in (longest // 2, 2 * longest))
    assert many < few


def test_short_answers_to_a_long_record_need_less_than_one_long_sequence():
    work = workload_of(built(torch.float32, lora=True), "float32")
    assert activation_bytes(work, 2048, 320) < 0.7 * activation_bytes(work, 2048, 1280)


def test_activations_are_computed_again_only_where_memory_is_short():
    work = workload_of(built(torch.float32, lora=True), "float32")
    keeping = planned_memory_bytes(work, 2 * LENGTH, LENGTH) / SHARE_OF_MEMORY
    assert choose_rows(work, machine(1e12), "cpu", LENGTH, LENGTH, 3 * LENGTH) == (3 * LENGTH, False)
    fitting, recompute = choose_rows(work, machine(keeping), "cpu", LENGTH, LENGTH, 3 * LENGTH)
    assert 2 * LENGTH - ROW_STEP_TOKENS < fitting <= 2 * LENGTH and not recompute
    assert choose_rows(work, machine(keeping), "cpu", LENGTH, LENGTH, 3 * LENGTH, recompute=True) == (
        3 * LENGTH,
        True,
    )
    row_tokens, recompute = choose_rows(work, machine(keeping), "cpu", 3 * LENGTH, 3 * LENGTH, 3 * LENGTH)
    assert (row_tokens, recompute) == (3 * LENGTH, True)
    with pytest.raises(UserError, match="too little memory"):
        choose_rows(work, machine(keeping), "cpu", 3 * LENGTH, 3 * LENGTH, 3 * LENGTH, recompute=False)
    with pytest.raises(UserError, match="too little memory"):
        choose_rows(work, machine(weight_bytes(work)), "cpu", LENGTH, LENGTH, LENGTH)
