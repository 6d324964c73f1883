"""What a training stage makes of the machine, and keeps for when it goes on."""

import pytest
import torch

from groundup.model import ModelConfig
from groundup.stages import training
from groundup.stages.training import choose_compute
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
