"""Folders that transformers alone knows: what is loaded, what is refused, and that a row runs as it should."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.batch import build_row
from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import StockLLM, attach_lora, load_model, read_config, save_model
from groundup.model.interface import NotOurAttention

SHAPE = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WEIGHTS = "model.safetensors"
TOKEN = torch.arange(3, 40)


class NoTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 1, 2, None

    def save_pretrained(self, folder):
        pass


def stock(kind="gpt2", **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SHAPE | more))).eval()


@pytest.fixture
def folder(tmp_path):
    stock().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_a_folder_and_what_is_known_of_it(folder):
    model = load_model(folder)
    assert isinstance(model, StockLLM) and model.tied and model.layout == "single"
    config = read_config(folder)
    assert (config.hidden_size, config.intermediate_size, config.max_position_embeddings) == (32, 128, 64)
    assert (config.head_dim, config.num_key_value_heads, config.eos_token_id) == (8, 4, 2)
    with torch.no_grad():
        expected = stock()(TOKEN[None]).logits[0]
    torch.testing.assert_close(model.logits(TOKEN), expected, atol=1e-5, rtol=1e-5)


def test_saved_again_it_is_the_same(folder):
    model = load_model(folder, trainable=True)
    save_model(model, folder, NoTokenizer(), dtype="bfloat16")
    again = load_model(folder)
    assert again.source_dtype == torch.bfloat16
    torch.testing.assert_close(again.logits(TOKEN), model.logits(TOKEN), atol=0.1, rtol=0.1)
    assert load_file(folder / WEIGHTS)["transformer.h.0.attn.c_attn.weight"].shape == (32, 96)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(("bad", "word"), [(float("nan"), "NaN"), (float("-inf"), "infinity")])
def test_weights_that_are_no_numbers(folder, bad, word):
    state = load_file(folder / WEIGHTS)
    state["transformer.h.1.mlp.c_fc.bias"][3] = bad
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"transformer\.h\.1\.mlp\.c_fc\.bias holds {word}"):
        load_model(folder)


def test_a_known_family_with_another_activation_runs_in_its_own_layers(tmp_path):
    torch.manual_seed(0)
    shape = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    theirs = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **shape, num_attention_heads=4, hidden_act="gelu")
    )
    theirs.eval().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert isinstance(model, StockLLM)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(TOKEN), theirs(TOKEN[None]).logits[0], atol=1e-5, rtol=1e-5)


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "no_such_model"}, "model_type 'no_such_model' is not known"),
        ({"model_type": "vit"}, "vit is no causal language model"),
        ({"model_type": "t5"}, "t5 is no causal language model"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "holds BertForMaskedLM"),
        ({"model_type": "gemma3", "vision_config": {"hidden_size": 8}}, "gemma3 is not a text model"),
        ({"quantization_config": {"quant_method": "gptq"}}, "stored quantized"),
        ({"n_embd": 48}, "cannot open this gpt2 model|lacks weights"),
        ({"n_layer": 3}, "lacks weights: transformer.h.2"),
    ],
)
def test_folders_that_cannot_be_trained(folder, values, message):
    change(folder, **values)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert str(folder) in caught.value.where and caught.value.fix


def test_its_own_code_is_never_run(folder):
    change(folder, model_type="foreign", auto_map={"AutoModelForCausalLM": "code.Evil"})
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match="'foreign' is not known") as caught:
        load_model(folder)
    assert "never run" in caught.value.why


def test_a_cut_file_is_named(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(folder)


def row(layout, record):
    return build_row([record], layout, token_weight=1.0, group_weight=1.0)


@pytest.fixture
def record():
    import numpy as np

    from groundup.batch import Chain, Record

    chains = []
    for answer in ([7, 8, 9], [11, 12]):
        token = np.array([3, 4, 5, 6, *answer], dtype=np.int32)
        chains.append(Chain(token, np.arange(len(token)) >= 4))
    return Record(0, tuple(chains))


def test_a_shared_row_needs_a_layout_that_shares(record):
    model = StockLLM(stock())
    with pytest.raises(AssertionError, match="layout single"):
        model(row("shared", record))
    model.layout = "shared"
    shared = model(row("shared", record)).logp_N
    model.layout = "single"
    torch.testing.assert_close(model(row("single", record)).logp_N, shared, atol=1e-5, rtol=1e-5)


def test_a_model_that_never_asks_is_noticed(record):
    model = StockLLM(stock("gptj", rotary_dim=4))
    model.layout = "packed"
    with pytest.raises(NotOurAttention, match="never call"):
        model(row("packed", record))


def test_training_mode_brings_no_dropout(record):
    model = StockLLM(stock(attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5))
    quiet = model.eval()(row("single", record)).logp_N
    assert torch.equal(model.train()(row("single", record)).logp_N, quiet) and model.training


def note_size(sizes, tensor):
    sizes.append(tensor.numel())
    return tensor


@pytest.mark.parametrize("layout", ["shared", "single"])
def test_recomputing_gives_the_same_gradients_from_less_memory(record, layout):
    model = StockLLM(stock())
    model.layout = layout
    found = []
    for recompute in (False, True):
        model.recompute = recompute
        kept: list[int] = []
        keep = functools.partial(note_size, kept)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(row(layout, record)).logp_N.sum()
        model.zero_grad()
        loss.backward()
        found.append((sum(kept), {name: p.grad.clone() for name, p in model.named_parameters()}))
    assert found[1][0] < 0.5 * found[0][0]
    for name, gradient in found[0][1].items():
        assert torch.equal(found[1][1][name], gradient), name


def test_frozen_layers_are_stored_in_the_compute_dtype_and_rotary_angles_are_not(tmp_path):
    torch.manual_seed(0)
    shape = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("gpt_neox", **shape, intermediate_size=48, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_model(tmp_path, "bfloat16")
    names = attach_lora(model, LoraSettings(r=2))
    assert len(names) == 8 and not any("embed" in name for name in names)
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if ".lora_" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if ".lora_" not in name} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}
