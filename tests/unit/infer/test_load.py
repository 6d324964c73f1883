"""Which weights, tokenizer, settings and dtype a model's name leads to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from groundup.errors import UserError
from groundup.hub import ModelSource, cache_beside, resolve_model
from groundup.infer import load
from groundup.infer.load import load_for_inference, plain_folder
from groundup.infer.origin import run_of
from groundup.store import Run

TOKENS = torch.arange(30, 60)


@pytest.fixture
def run(tmp_path: Path, model_folder: Path) -> Run:
    """A run with an sft stage's model and a converted base model."""
    root = tmp_path / "demo"
    shutil.copytree(model_folder, root / "sft" / "final")
    shutil.copytree(model_folder, root / "models" / "base")
    stages = {"sft": {"kind": "sft", "from": "x"}, "final": {"kind": "merge", "from": "sft"}}
    recipe = {"name": "demo", "chat": {"system_prompt": "Help."}, "stages": stages}
    (root / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    for stage in stages:
        (root / stage).mkdir(exist_ok=True)
        (root / stage / "manifest.json").write_text("{}")
    return Run.open(root, create=False)


def write_adapter(folder: Path, base: Path) -> Path:
    """PEFT's own, with factors that matter."""
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(folder)
    return folder


def peft_logits(adapter: Path, base: Path) -> torch.Tensor:
    stock = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(stock, adapter)(TOKENS[None]).logits[0]


def test_a_folder(model_folder: Path):
    loaded = load_for_inference(str(model_folder), dtype="float32")
    assert loaded.has_template
    assert loaded.context_tokens == 192
    assert loaded.stop_tokens == (loaded.tokenizer.eos_token_id,)
    assert loaded.chat.system_prompt is None
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_base_model_has_no_template(base_folder: Path):
    assert not load_for_inference(str(base_folder), dtype="float32").has_template


def test_the_base_may_be_among_what_was_downloaded_for_the_run(
    run: Run, model_folder: Path, loopback_hub, online
):
    loopback_hub.add_model("org/base", model_folder)
    with cache_beside(run.downloads):
        online.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(run.downloads))
        resolve_model("org/base")
    online.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(run.root / "nothing"))
    online.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.rmtree(run.stage("sft").final)
    adapter = write_adapter(run.stage("sft").final, model_folder)
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "org/base"}))
    assert load_for_inference(str(run.root / "sft"), dtype="float32").folder == adapter


def test_an_adapter_is_put_on_its_base_with_the_bases_tokenizer(tmp_path: Path, model_folder: Path):
    adapter = write_adapter(tmp_path / "adapter", model_folder)
    loaded = load_for_inference(str(adapter), dtype="float32")
    expected = peft_logits(adapter, model_folder)
    assert torch.allclose(loaded.model.logits(TOKENS), expected, atol=1e-4)
    plain = load_for_inference(str(model_folder), dtype="float32")
    assert not torch.allclose(plain.model.logits(TOKENS), expected, atol=1e-1)
    assert loaded.has_template
    assert loaded.folder == adapter


def test_an_adapter_on_an_adapter(tmp_path: Path, model_folder: Path):
    first = write_adapter(tmp_path / "first", model_folder)
    second = tmp_path / "second"
    shutil.copytree(first, second)
    config = json.loads((second / "adapter_config.json").read_text())
    (second / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(first)}))
    stock = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    stock = PeftModel.from_pretrained(stock, first).merge_and_unload()
    with torch.no_grad():
        expected = PeftModel.from_pretrained(stock, first)(TOKENS[None]).logits[0]
    loaded = load_for_inference(str(second), dtype="float32")
    assert torch.allclose(loaded.model.logits(TOKENS), expected, atol=1e-4)


def test_an_adapter_that_names_itself_is_refused(tmp_path: Path, model_folder: Path):
    adapter = write_adapter(tmp_path / "adapter", model_folder)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(adapter)})
    )
    with pytest.raises(UserError, match="names itself"):
        load_for_inference(str(adapter))


def test_all_stop_tokens_of_the_generation_config_count(tmp_path: Path, model_folder: Path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 77]}))
    assert load_for_inference(str(folder), dtype="float32").stop_tokens == (1, 77)


@pytest.mark.parametrize("inside", ["sft/final", "models/base"])
def test_a_model_in_a_run_has_the_runs_chat_settings(run: Run, inside: str):
    assert load_for_inference(str(run.root / inside), dtype="float32").chat.system_prompt == "Help."


def test_only_a_runs_own_folders_belong_to_it(run: Run, model_folder: Path):
    assert run_of(model_folder) is None
    assert run_of(run.root / "sft" / "final" / "deeper" / "folder") is None


def test_broken_chat_settings_are_named(run: Run):
    run.recipe.write_text(run.recipe.read_text().replace("system_prompt", "sistem_prompt"))
    with pytest.raises(UserError, match="chat settings") as caught:
        load_for_inference(str(run.root / "sft"), dtype="float32")
    assert caught.value.where == str(run.recipe)


def test_the_dtype_is_the_plans_even_of_an_earlier_stage_else_measured(
    run: Run, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(load, "measure_dtypes", lambda *_: {"float32": 1.0, "bfloat16": 2.0})
    assert load_for_inference(str(model_folder)).model.compute_dtype == torch.bfloat16
    (run.root / "sft" / "plan.json").write_text(json.dumps({"dtype": "float32", "layout": "shared"}))
    shutil.copytree(model_folder, run.root / "final" / "final")
    for name in ("sft", "final"):
        assert load_for_inference(str(run.root / name)).model.compute_dtype == torch.float32
    assert load_for_inference(str(run.root / "sft"), dtype="bfloat16").model.compute_dtype == torch.bfloat16


def test_the_measurement_is_of_the_models_own_matrices(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, int, int]] = []

    def measure(shapes: list[tuple[int, int, int]], *_: object) -> dict[str, float]:
        seen.extend(shapes)
        return {"float32": 1.0, "bfloat16": 0.1}

    monkeypatch.setattr(load, "measure_dtypes", measure)
    assert load.fast_dtype(model_folder, "cpu") == "float32"
    assert {shape[1:] for shape in seen} == {(32, 32), (32, 48), (48, 32)}


def test_a_gguf_file_is_converted_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Path]
):
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"GGUF and more")
    converted: list[Path] = []

    def convert(path: Path, folder: Path) -> None:
        assert path == gguf
        converted.append(make_model(folder))

    monkeypatch.setattr(load, "convert_gguf", convert)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = ModelSource("gguf", gguf, None, "small")
    for _ in range(2):
        assert load_for_inference(source, dtype="float32").folder == gguf
    assert [folder.parent for folder in converted] == [tmp_path / "cache" / "groundup" / "models"]
    assert plain_folder(source, run).parent == run.models
    assert len(converted) == 2
