"""What is downloaded from a hub that works."""

import pytest

from groundup.errors import UserError
from groundup.hub import listing, resolve_data, resolve_model

WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{ }"}


def cached(tmp_path, name="models--org--tiny"):
    return tmp_path / "hub-cache" / name


def test_downloads_the_model_without_its_other_formats(hub):
    others = {"pytorch_model.bin", "consolidated.safetensors", "onnx/model.safetensors", "picture.png"}
    hub.add_model("org/tiny", MODEL | dict.fromkeys(others, b"x"))
    source = resolve_model("org/tiny")
    assert (source.kind, source.name, source.base) == ("folder", "org/tiny", None)
    assert {file.name for file in source.path.rglob("*")} == set(MODEL)
    assert (source.path / "model.safetensors").read_bytes() == WEIGHTS


def test_pickled_weights_only_where_there_are_no_others(hub):
    hub.add_model("org/old", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert (resolve_model("org/old").path / "pytorch_model.bin").read_bytes() == b"x"


def test_progress_is_shown(hub, capsys):
    hub.add_model("org/tiny", MODEL | {"model.safetensors": bytes(5_000_000)})
    resolve_model("org/tiny")
    assert "Downloading org/tiny  5/5 MB" in capsys.readouterr().out


def test_an_adapter_on_the_hub_names_its_base(hub):
    config = b'{"base_model_name_or_path": "org/tiny"}'
    hub.add_model("org/adapter", {"adapter_config.json": config, "adapter_model.safetensors": WEIGHTS})
    source = resolve_model("org/adapter")
    assert (source.kind, source.base) == ("adapter", "org/tiny")


def test_a_second_time_nothing_is_downloaded_and_in_one_process_nothing_asked(hub):
    hub.add_model("org/tiny", MODEL)
    first = resolve_model("org/tiny")
    hub.requests.clear()
    assert resolve_model("org/tiny") == first
    assert not hub.asked
    listing.forget()
    assert resolve_model("org/tiny") == first
    assert hub.asked == ["/api/models/org/tiny"]


def test_the_cache_is_laid_out_as_huggingface_hub_does(hub, tmp_path):
    from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

    hub.add_model("org/tiny", MODEL)
    folder = resolve_model("org/tiny").path
    assert try_to_load_from_cache("org/tiny", "model.safetensors") == str(folder / "model.safetensors")
    assert snapshot_download("org/tiny", local_files_only=True) == str(folder)
    found = scan_cache_dir(tmp_path / "hub-cache")
    assert not found.warnings
    assert {repo.repo_id: repo.nb_files for repo in found.repos} == {"org/tiny": 3}


def test_what_huggingface_hub_downloaded_is_used(hub):
    from huggingface_hub import snapshot_download

    hub.add_model("org/tiny", MODEL)
    folder = snapshot_download("org/tiny", endpoint=hub.url)
    hub.requests.clear()
    assert str(resolve_model("org/tiny").path) == folder
    assert not hub.fetched


def test_without_links_files_lie_in_the_snapshot(hub, online, tmp_path):
    from huggingface_hub import constants

    online.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    files = MODEL | {"special_tokens_map.json": b"{}", "added_tokens.txt": b""}  # one as another, one empty
    hub.add_model("org/tiny", files)
    folder = resolve_model("org/tiny").path
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert not any(file.is_symlink() for file in folder.iterdir())
    (folder / "model.safetensors").write_bytes(b"x" * len(WEIGHTS))
    listing.forget()
    assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == WEIGHTS
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("org/tiny").path == folder


def test_a_link_that_leads_nowhere(hub):
    hub.add_model("org/tiny", MODEL | {"empty.json": b""})
    weights = resolve_model("org/tiny").path / "model.safetensors"
    weights.resolve().unlink()
    assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == WEIGHTS


def test_an_old_name_leads_to_the_new_one(hub):
    hub.add_dataset("Org/words", {"train.jsonl": b'{"text": "a"}\n'})
    hub.moved["words"] = "Org/words"
    assert [file.name for file in resolve_data("words")] == ["train.jsonl"]


def test_large_files_may_lie_elsewhere(hub, online):
    from loopback import LoopbackHub

    online.setenv("HF_TOKEN", "hf_secret")
    with LoopbackHub() as storage:
        hub.storage = storage.url
        for place in (hub, storage):
            place.add_model("org/tiny", MODEL)
        assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == WEIGHTS
        assert storage.fetched == ["model.safetensors"]
        assert "Authorization" not in storage.requests[0].headers  # the token is the hub's alone


def test_a_data_set(hub):
    hub.add_dataset("org/pairs", {"data/train.jsonl": b"{}\n", "README.md": b"about", "picture.png": b"x"})
    assert [file.name for file in resolve_data("org/pairs")] == ["README.md", "train.jsonl"]


def test_a_hub_without_checksums(hub):
    hub.add_model("org/tiny", MODEL)
    hub.checksums = False
    assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == WEIGHTS


def test_offline_uses_the_cache_and_says_when_there_is_none(hub, online):
    from huggingface_hub import constants

    hub.add_model("org/tiny", MODEL)
    first = resolve_model("org/tiny")
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("org/tiny") == first
    with pytest.raises(UserError, match="downloads are switched off"):
        resolve_model("org/other")


def test_offline_an_incomplete_copy_is_told(hub, online, tmp_path):
    from huggingface_hub import constants

    hub.add_model("org/tiny", MODEL)
    (resolve_model("org/tiny").path / "model.safetensors").unlink()
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "not whole (model.safetensors: missing)" in caught.value.why
    assert "groundup fetch" in caught.value.fix


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "a/../../evil", "c:\\evil"])
def test_a_hub_cannot_write_outside_of_the_cache(hub, tmp_path, name):
    hub.add_model("org/tiny", MODEL | {name: b"x"})
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "outside of the repository" in caught.value.why
    assert not list(tmp_path.rglob("evil*"))
