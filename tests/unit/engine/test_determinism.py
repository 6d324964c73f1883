"""The same step, run again, has the same bits: losses, gradients, moments and saved files.

What breaks this, and where it is shown: sums over repeated sources, processors' threads and the state of random
generators (here), rows that differ between the reference and training (here), the order of records
(`tests/unit/batch`), the number of threads (`tests/unit/stages/test_training.py`), killed runs (`tests/parity`).
"""

import hashlib
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stream, pack_step
from groundup.config.schema import LoraSettings, TrainSettings
from groundup.engine.checkpoint import State, save_checkpoint
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import make_optimizer
from groundup.eval import record_logps
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize, lora_state
from groundup.objective import Dpo, LanguageModeling, means

TIMES = 30
GRAIN = 32768
"""Elements that PyTorch gives to one thread at least."""
RACING = {"IndexBackward0", "IndexPutBackward0", "PutBackward0", "TakeBackward0", "ScatterAddBackward0"}
VOCABULARY = 97
RAW = {
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
    "initializer_range": 0.15,
}


@pytest.fixture
def two_threads():
    """Sums that are cut over threads are where bits get lost."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def forks(count=20, children=8, prompt=20):
    """Groups of answers to one prompt: the fork predicts the first token of each, some of them the same."""
    draw = np.random.default_rng(0)
    records = []
    for index in range(count):
        start = draw.integers(0, VOCABULARY, prompt)
        chains = []
        for child in range(children):
            answer = draw.integers(0, VOCABULARY, 1 + (5 * child + index) % 30)
            answer[0] = child // 2  # brothers begin with the same token
            token = np.concatenate((start, answer)).astype(np.int32)
            chains.append(Chain(token, np.arange(len(token)) >= prompt))
        records.append(Record(index, tuple(chains)))
    return records


def made(kind, dtype, hidden_size=64):
    """A model to train whole, by an adapter that already says something, or whole with activations made again."""
    raw = RAW | {"hidden_size": hidden_size}
    model = initialize(BaseLLM(ModelConfig.from_hf(raw), dtype), seed=3)
    model.recompute = kind == "recomputed"
    if kind == "lora":
        attach_lora(model, LoraSettings(r=4), seed=5)
        generator = torch.Generator().manual_seed(6)
        for name, tensor in lora_state(model).items():
            if ".lora_B" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


def tensor_bytes(tensor):
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def one_step(kind, dtype, folder, hidden_size=64):
    """(losses, digest of the gradients, digest of the files) of a first step over several rows.

    A row has enough reads that PyTorch cuts sums over them into two threads' parts.
    """
    model = made(kind, dtype, hidden_size)
    optimizer = make_optimizer(model, TrainSettings(learning_rate=1e-2, weight_decay=0.1))
    rows = pack_step(forks(), 1400)
    assert len(rows) == 2 and {int(row.source_N.bincount().max()) for row in rows} == {8}
    assert len(rows[0].source_N) * hidden_size > 2 * GRAIN
    losses = [means([backward(model, LanguageModeling(), row)])["loss"] for row in rows]
    gradients = hashlib.sha256()
    for parameter in model.parameters():
        if parameter.requires_grad:
            gradients.update(tensor_bytes(parameter.grad))
    norm = update(model, optimizer, 1e-2, 0.1)
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder, model, optimizer, State(step=1))
    files = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir())))
    return (*losses, norm), gradients.hexdigest(), files.hexdigest()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("full", torch.float32),
        ("lora", torch.bfloat16),
        pytest.param("full", torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("lora", torch.float32, marks=pytest.mark.slow),
        pytest.param("recomputed", torch.float32, marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_same_bits_thirty_times(kind, dtype, two_threads, tmp_path):
    """G = 8 answers to a prompt; also whatever the global random generators say."""
    found = set()
    for again in range(TIMES):
        torch.manual_seed(again)
        np.random.seed(again)
        random.seed(again)
        found.add(one_step(kind, dtype, tmp_path / "step"))
    assert len(found) == 1, f"{len(found)} different results in {TIMES} runs"
    losses, *_ = found.pop()
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_wide_models_step_has_the_same_bits_thirty_times(kind, two_threads, tmp_path):
    """Sums over more elements, so that threads race even where they take turns on one core."""
    found = {one_step(kind, torch.float32, tmp_path / "step", 1536) for _ in range(TIMES)}
    assert len(found) == 1, f"{len(found)} different results in {TIMES} runs"


def graph_of(loss):
    """Names of the backward's functions."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_no_function_of_the_backward_adds_in_the_order_that_threads_arrive(kind):
    """`x[index]` does, on a CPU too, while `index_select` does not; it shows only in large rows, and not each time."""
    source = torch.zeros(3, 2, requires_grad=True)
    assert graph_of(source[torch.tensor([1, 1])].sum()) & RACING, "PyTorch renamed the function"
    (row, *_) = pack_step(forks(), 1400)
    loss, _ = LanguageModeling().loss(made(kind, torch.float32)(row), row)
    names = graph_of(loss)
    assert not names & RACING
    assert "IndexSelectBackward0" in names


def test_training_leaves_the_random_generators_alone(tmp_path):
    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    one_step("lora", torch.float32, tmp_path / "step")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_the_order_of_records_does_not_depend_on_what_was_asked_before():
    """A resumed stream begins in the middle; nothing is drawn from a generator that went through the start."""
    sizes = np.arange(1, 40)
    in_order = [Stream(sizes, 50, seed=3).records_of(step).tolist() for step in range(60)]
    stream = Stream(sizes, 50, seed=3)
    for step in np.random.default_rng(1).permutation(60):
        assert stream.records_of(int(step)).tolist() == in_order[step]
    other = Stream(sizes, 50, seed=4)
    assert [other.records_of(step).tolist() for step in range(60)] != in_order


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_activations_made_again_give_the_same_bits(dtype, two_threads, tmp_path):
    kept, again = (one_step(kind, dtype, tmp_path / "step") for kind in ("full", "recomputed"))
    assert kept == again


# Old, reference and new log-probabilities come from the same rows.


@pytest.mark.parametrize("kind", ["full", "lora", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_dpos_first_margins_are_exactly_zero(kind, dtype, two_threads):
    """The reference is computed without gradient, the policy with: the same rows, so the same bits."""
    records, model = forks(6, children=2, prompt=25), made(kind, dtype)
    reference = record_logps(model, pack_step(records, 60), device="cpu", total=6, title="")
    with_reference = [Record(r.index, r.chains, {"ref_logp": reference[r.index]}) for r in records]
    metrics = [backward(model, Dpo(0.1), row) for row in pack_step(with_reference, 60)]
    assert len(metrics) > 2
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        assert all(row[name][0] == 0.0 for row in metrics), name
    assert means(metrics)["loss"] == pytest.approx(math.log(2), abs=1e-7)
    gradient = sum(float(p.grad.norm()) for p in model.parameters() if p.requires_grad)
    assert gradient > 1e-3


@pytest.mark.parametrize("kind", ["full", "lora", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_ratio_to_the_old_policy_is_exactly_one(kind, dtype, two_threads):
    """Token by token, over eight answers a prompt, in training mode and not."""
    model = made(kind, dtype)
    for row in pack_step(forks(), 1400):
        model.eval()
        with torch.no_grad():
            old = model(row).logp_N
        new = model.train()(row).logp_N
        assert new.requires_grad and torch.equal(new, old)


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import test_determinism as here
torch.set_num_threads(2)
for kind in ("full", "lora"):
    print(here.one_step(kind, torch.float32, Path(sys.argv[2]) / kind))
"""


@pytest.mark.slow
def test_another_process_finds_the_same_bits(tmp_path):
    """Whatever order Python's sets have there, and wherever memory lies."""
    said = set()
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        path = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1 and len(said.pop().splitlines()) == 2
