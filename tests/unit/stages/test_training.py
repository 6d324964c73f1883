"""What a training stage makes of the machine, and keeps for when it goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stream
from groundup.engine import Exactness
from groundup.model import BaseLLM, ModelConfig, initialize
from groundup.objective import LanguageModeling
from groundup.stages import training
from groundup.stages.posttrain import material_of
from groundup.stages.training import Compute, Material, choose_compute, choose_layout, make_plan
from groundup.store.files import write_json

CONFIG = ModelConfig.from_hf(
    {
        "model_type": "llama",
        "vocab_size": 31,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
)
PLAN = {"device": "cpu", "dtype": "bfloat16", "dtype_reason": "it was faster", "gflops": {}, "threads": 3}


@pytest.fixture(autouse=True)
def same_process():
    """A stage sets the number of threads, and strictness, for its process."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture
def sft(context):
    return context({"sft": {"from": "model", "data": "rows.jsonl"}}, "sft")


def test_a_stage_that_goes_on_takes_threads_and_dtype_of_its_plan(sft, monkeypatch):
    """Sums cut over another number of threads have other bits; another dtype has other numbers."""
    monkeypatch.setattr(training, "measure_dtypes", lambda *_, **__: pytest.fail("it measured again"))
    write_json(sft.stage.plan, PLAN)
    torch.set_num_threads(1)
    compute = choose_compute(sft, CONFIG)
    assert (compute.dtype, compute.reason) == ("bfloat16", "it was faster")
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()


def test_a_new_stage_takes_the_machines_cores_and_is_strict(sft, monkeypatch):
    monkeypatch.setattr(training, "measure_dtypes", lambda *_, **__: {"float32": 2.0, "bfloat16": 1.0})
    torch.set_num_threads(2)
    assert choose_compute(sft, CONFIG).dtype == "float32"
    assert torch.get_num_threads() == sft.machine.cores == 1
    assert torch.are_deterministic_algorithms_enabled()


def material() -> Material:
    scored = np.arange(9) > 0
    records = [Record(i, (Chain(np.arange(9, dtype=np.int32), scored),)) for i in range(40)]
    stream = Stream(np.ones(40, dtype=np.int64), 4, seed=0)
    pick = lambda indices: [records[i] for i in indices]  # noqa: E731
    return Material(stream, np.full(40, 8), pick, LanguageModeling(), "shared", 8)


@pytest.mark.parametrize(("wish", "made_again"), [("auto", False), (False, False), (True, True)])
def test_gradient_checkpointing_is_planned_and_kept_for_a_stage_that_goes_on(context, wish, made_again):
    stage = context({"sft": {"from": "model", "data": "rows.jsonl", "gradient_checkpointing": wish}}, "sft")
    stage.stage.root.mkdir(parents=True)
    compute = Compute("cpu", "float32", "", {})
    for _ in range(2):  # the second time from plan.json
        model = initialize(BaseLLM(CONFIG), 0)
        plan = make_plan(stage, model, compute, material())
        assert plan.recompute is model.recompute is made_again


def test_memory_is_planned_for_the_longest_sequence_not_for_the_pair(context):
    stage = context({"dpo": {"from": "model", "data": "rows.jsonl"}}, "dpo")
    scored = np.arange(9) > 4
    pair = Record(0, tuple(Chain(np.arange(9, dtype=np.int32) + end, scored) for end in (0, 1)))
    made = material_of(stage, [pair], "packed")
    assert (made.longest_tokens, made.chain_tokens) == (16, 9)


def test_a_row_is_as_long_as_the_largest_step(sft):
    """Steps of one to four records of 8 tokens: the first alone would not tell."""
    sizes = np.array([4, 1, 1, 1, 1, 4, 1, 1, 1, 1])
    grown = replace(material(), stream=Stream(sizes, 4, seed=1), sizes=np.full(10, 8))
    steps = [len(grown.stream.records_of(step)) for step in range(50)]
    assert min(steps) < max(steps) == 4
    sft.stage.root.mkdir(parents=True)
    plan = make_plan(sft, initialize(BaseLLM(CONFIG), 0), Compute("cpu", "float32", "", {}), grown)
    assert plan.row_tokens == 4 * 8


def test_the_same_weights_are_probed_once_and_others_again(sft, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "_probed", {})
    monkeypatch.setattr(
        training, "probe", lambda model, length: asked.append(length) or Exactness(f"answer {len(asked)}", "")
    )
    one, twin = (initialize(BaseLLM(CONFIG), seed=0) for _ in range(2))
    assert [choose_layout(sft, model, 64).layout for model in (one, twin)] == ["answer 1"] * 2
    twin.compute_dtype = torch.bfloat16
    assert choose_layout(sft, twin, 64).layout == "answer 2"
    with torch.no_grad():
        next(one.parameters())[0] += 1
    assert choose_layout(sft, one, 64).layout == "answer 3"
    assert choose_layout(sft, one, 65).layout == "answer 4" and asked == [64, 64, 64, 65]
