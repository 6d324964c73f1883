import json

import pytest

from groundup.errors import UserError
from groundup.hub import resolve_tokenizer


def make(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_json", ".json").replace("_safetensors", ".safetensors")).write_text(text)
    return folder


def test_a_folder_and_a_stage(tmp_path):
    folder = make(tmp_path / "tokenizer" / "final", tokenizer_json="{}")
    assert resolve_tokenizer(str(folder)) == folder
    assert resolve_tokenizer("tokenizer", relative_to=tmp_path) == folder


def test_an_adapter_has_its_bases_unless_it_brings_its_own(tmp_path):
    base = make(tmp_path / "base", config_json="{}", model_safetensors="x", tokenizer_json="{}")
    config = json.dumps({"base_model_name_or_path": str(base)})
    adapter = make(tmp_path / "adapter", adapter_config_json=config, adapter_model_safetensors="x")
    assert resolve_tokenizer(str(adapter)) == base
    (adapter / "tokenizer.json").write_text("{}")
    assert resolve_tokenizer(str(adapter)) == adapter


def test_a_gguf_file(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert resolve_tokenizer(str(file)) == file


def test_of_a_hubs_model_only_the_tokenizer_is_downloaded(hub):
    hub.add_model("org/tiny", {"tokenizer.json": b"{}", "config.json": b"{}", "model.safetensors": b"x"})
    folder = resolve_tokenizer("org/tiny")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "tokenizer.json"]


def test_where_there_is_none(tmp_path):
    model = make(tmp_path / "model", config_json="{}", model_safetensors="x")
    with pytest.raises(UserError, match="holds no tokenizer"):
        resolve_tokenizer(str(model))
    with pytest.raises(UserError, match="There is no tokenizer at"):
        resolve_tokenizer("./nowhere")
