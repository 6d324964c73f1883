"""Computing in bfloat16: the loss curve stays at float32's, and what is trained is kept where small updates last."""

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stream, pack_step
from groundup.config.schema import LoraSettings, TrainSettings
from groundup.engine.loop import backward, update
from groundup.engine.optimizer import learning_rate_at, make_optimizer
from groundup.model import BaseLLM, ModelConfig, attach_lora, initialize, load_model, save_model
from groundup.objective import LanguageModeling, means

VOCABULARY = 61
RAW = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
STEPS = 60


class NoTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 1, 2, None

    def save_pretrained(self, folder):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder: the loader decides in which dtype weights are kept."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(initialize(BaseLLM(ModelConfig.from_hf(RAW)), seed=0), path, NoTokenizer())
    return path


def to_train(folder, kind, dtype):
    model = load_model(folder, dtype, trainable=kind == "full")
    if kind == "lora":
        attach_lora(model, LoraSettings(r=4), seed=1)
    return model


def texts(count=48):
    """Walks over a fixed successor table, now and then at random: there is something to learn."""
    draw = np.random.default_rng(0)
    successor = draw.permutation(VOCABULARY)
    records = []
    for index in range(count):
        token = [int(draw.integers(VOCABULARY))]
        for _ in range(int(draw.integers(12, 40))):
            jump = draw.random() < 0.1
            token.append(int(draw.integers(VOCABULARY)) if jump else int(successor[token[-1]]))
        chain = Chain(np.array(token, dtype=np.int32), np.arange(len(token)) >= 4)
        records.append(Record(index, (chain,)))
    return records


def curve(model, optimizer, settings, steps=STEPS):
    """The loss of each step."""
    records = texts()
    stream = Stream(np.ones(len(records), dtype=np.int64), 8, seed=2)
    losses = []
    for step in range(steps):
        rows = pack_step([records[i] for i in stream.records_of(step)], 300)
        losses.append(means([backward(model, LanguageModeling(), row) for row in rows])["loss"])
        update(model, optimizer, learning_rate_at(step, steps, settings), settings.max_grad_norm)
    return np.array(losses)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate", "bound"), [("full", 3e-3, 0.02), ("lora", 1e-2, 0.06)])
def test_the_curve_stays_at_float32s(folder, kind, rate, bound):
    """Sixty steps: no step's loss is further than `bound` nats from float32's; on average a quarter of that."""
    settings = TrainSettings(learning_rate=rate, weight_decay=0.1)
    exact, narrow = (
        curve(model, make_optimizer(model, settings), settings)
        for model in (to_train(folder, kind, dtype) for dtype in ("float32", "bfloat16"))
    )
    assert exact[-5:].mean() < exact[0] - 2
    assert np.abs(exact - narrow).max() < bound and abs((exact - narrow).mean()) < bound / 4


def not_zero(model):
    """The trained weights that begin as numbers: all but an adapter's B, of which any dtype can leave zero."""
    return {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad and ".lora_B" not in name
    }


def share_moved(model, before):
    moved = [(model.get_parameter(name) != old).float().flatten() for name, old in before.items()]
    return float(torch.cat(moved).mean())


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_small_updates_do_not_vanish(folder, kind):
    """At a rate of 1e-5 nearly every weight moves. Kept in bfloat16, as a loader could do it, few would.

    The neighbour of 0.1 is 5e-4 away there: an update of 1e-5 is rounded back to where it came from, each time.
    """
    settings = TrainSettings(learning_rate=1e-5, lr_scheduler_type="constant", warmup_ratio=0.0)
    model = to_train(folder, kind, "bfloat16")
    before, optimizer = not_zero(model), make_optimizer(model, settings)
    curve(model, optimizer, settings, steps=20)
    trained = [p for p in model.parameters() if p.requires_grad]
    moments = [m for p in trained for key, m in optimizer.state[p].items() if key.startswith("exp_avg")]
    assert len(moments) == 2 * len(trained)
    assert {x.dtype for x in (*trained, *moments)} == {torch.float32}
    assert share_moved(model, before) > 0.99

    rounded = to_train(folder, kind, "bfloat16")
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    before = not_zero(rounded)
    parameters = [p for p in rounded.parameters() if p.requires_grad]
    curve(rounded, torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0), settings, steps=20)
    assert share_moved(rounded, before) < 0.2
