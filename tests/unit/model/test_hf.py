"""Folders that are broken, and folders that are written whole."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model import BaseLLM, ModelConfig, attach_lora, convert_gguf, initialize, load_model, save_model

RAW = {
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "tie_word_embeddings": True,
}
WEIGHTS = "model.safetensors"


class NoTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 1, 2, None

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def folder(tmp_path):
    save_model(initialize(BaseLLM(ModelConfig.from_hf(RAW)), seed=0), tmp_path / "m", NoTokenizer())
    return tmp_path / "m"


def test_what_a_saved_folder_holds(folder):
    state = load_file(folder / WEIGHTS)
    assert "lm_head.weight" not in state and {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    config = json.loads((folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["dtype"]) == (1, 2, "float32")
    assert (folder / "tokenizer.json").exists()


def test_generation_config_travels_and_may_be_extended(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5], "temperature": 0.6}')
    model = load_model(folder)
    save_model(model, folder, NoTokenizer(), generation_config={"temperature": 0.2}, dtype="bfloat16")
    saved = json.loads((folder / "generation_config.json").read_text())
    assert (saved["eos_token_id"], saved["temperature"], saved["bos_token_id"]) == ([2, 5], 0.2, 1)
    again = load_model(folder)
    assert again.source_dtype == torch.bfloat16 and again.config.eos_token_id == (2, 5)


@pytest.mark.parametrize(("trainable", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_trained_weights_stay_float32(folder, trainable, dtype):
    model = load_model(folder, "bfloat16", trainable=trainable)
    assert model.compute_dtype == torch.bfloat16 and model.tied
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(dtype, trainable)}


def test_several_files_with_an_index(folder):
    state = load_file(folder / WEIGHTS)
    names = sorted(state)
    expected = load_model(folder).logits(torch.arange(5))
    for part, chosen in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: state[name] for name in chosen}, folder / part)
    index = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / WEIGHTS).unlink()
    assert torch.equal(load_model(folder).logits(torch.arange(5)), expected)
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors"):
        load_model(folder)


def break_missing(folder, state):
    state.pop("model.layers.1.mlp.up_proj.weight")


def break_unknown(folder, state):
    state["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(16)


def break_shape(folder, state):
    state["model.norm.weight"] = torch.ones(17)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_missing, r"lacks weights: model\.layers\.1\.mlp\.up_proj"),
        (break_unknown, "unexpected weights"),
        (break_shape, "shape"),
    ],
)
def test_weights_that_do_not_fit(folder, damage, message):
    state = load_file(folder / WEIGHTS)
    damage(folder, state)
    save_file(state, folder / WEIGHTS)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert str(folder) in caught.value.where


def test_no_weights_pickles_and_cut_files(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="no weights"):
        load_model(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickles"):
        load_model(folder)


def test_a_stored_head_that_differs_is_not_tied(folder):
    state = load_file(folder / WEIGHTS)
    state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1.0
    save_file(state, folder / WEIGHTS)
    model = load_model(folder)
    assert not model.tied and not model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, state["lm_head.weight"])


def test_a_failed_save_leaves_the_old_folder(folder):
    class Broken(NoTokenizer):
        def save_pretrained(self, folder):
            raise OSError(28, "No space left on device")

    model = load_model(folder)
    with pytest.raises(UserError, match="full"):
        save_model(model, folder, Broken())
    assert torch.equal(load_model(folder).logits(torch.arange(5)), model.logits(torch.arange(5)))
    assert [path.name for path in folder.parent.iterdir()] == ["m"]


def test_an_adapter_is_not_saved_silently_without_itself(folder):
    model = load_model(folder)
    attach_lora(model, LoraSettings())
    with pytest.raises(AssertionError, match="merge"):
        save_model(model, folder, NoTokenizer())


def test_not_a_gguf_file(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"nope")
    with pytest.raises(UserError, match="not a GGUF"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
