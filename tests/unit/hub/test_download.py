import time

import pytest

from groundup.errors import UserError
from groundup.hub import resolve_data, resolve_model

WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}


def test_downloads_the_model_without_its_other_formats(hub):
    hub.files["org/tiny"] = MODEL | {
        "pytorch_model.bin": b"x",
        "consolidated.safetensors": b"x",
        "onnx/model.safetensors": b"x",
        "picture.png": b"x",
    }
    source = resolve_model("org/tiny")
    assert (source.kind, source.name, source.base) == ("folder", "org/tiny", None)
    assert {file.name for file in source.path.rglob("*")} == set(MODEL)
    assert (source.path / "model.safetensors").read_bytes() == WEIGHTS


def test_pickled_weights_only_where_there_are_no_others(hub):
    hub.files["org/old"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    assert (resolve_model("org/old").path / "pytorch_model.bin").read_bytes() == b"x"


def test_progress_is_shown(hub, capsys):
    hub.files["org/tiny"] = MODEL | {"model.safetensors": bytes(5_000_000)}
    resolve_model("org/tiny")
    assert "Downloading org/tiny  5/5 MB" in capsys.readouterr().out


def test_an_adapter_on_the_hub_names_its_base(hub):
    config = b'{"base_model_name_or_path": "org/tiny"}'
    hub.files["org/adapter"] = {"adapter_config.json": config, "adapter_model.safetensors": WEIGHTS}
    source = resolve_model("org/adapter")
    assert (source.kind, source.base) == ("adapter", "org/tiny")


def test_a_second_time_nothing_is_downloaded(hub):
    hub.files["org/tiny"] = MODEL
    first = resolve_model("org/tiny")
    hub.asked.clear()
    assert resolve_model("org/tiny") == first
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_a_data_set(hub):
    hub.files["org/pairs"] = {"data/train.jsonl": b"{}\n", "README.md": b"about", "picture.png": b"x"}
    assert [file.name for file in resolve_data("org/pairs")] == ["README.md", "train.jsonl"]


def test_unknown_name_may_have_been_a_path(hub, tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        resolve_model("my-modle")
    assert "There is no model my-modle" in caught.value.what
    assert "404" in caught.value.why
    assert "my-model" in caught.value.fix


def test_401_may_be_private(hub):
    hub.status["org/secret"] = (401, "RepoNotFound")
    with pytest.raises(UserError) as caught:
        resolve_model("org/secret")
    assert "private" in caught.value.why
    assert "HF_TOKEN" in caught.value.fix


def test_gated(hub):
    hub.status["org/gated"] = (403, "GatedRepo")
    with pytest.raises(UserError) as caught:
        resolve_model("org/gated")
    assert "gated" in caught.value.what
    assert f"{hub.url}/org/gated" in caught.value.fix


def test_a_failing_hub_is_given_up_soon(hub):
    hub.status["org/tiny"] = (503, "")
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "503" in caught.value.why
    assert time.monotonic() - started < 20


def test_connection_refused_fails_soon(online):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "127.0.0.1:9 cannot be reached" in caught.value.what
    assert "HF_ENDPOINT" in caught.value.fix
    assert time.monotonic() - started < 20


def test_the_copy_in_the_cache_serves_where_the_hub_does_not(hub, online, capsys):
    hub.files["org/tiny"] = MODEL
    first = resolve_model("org/tiny")
    online.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve_model("org/tiny") == first
    assert "The copy of org/tiny in the cache is used" in capsys.readouterr().err


def test_offline_uses_the_cache_and_says_when_there_is_none(hub, online):
    from huggingface_hub import constants

    hub.files["org/tiny"] = MODEL
    first = resolve_model("org/tiny")
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("org/tiny") == first
    with pytest.raises(UserError, match="downloads are switched off"):
        resolve_model("org/other")


def test_too_little_disk_space_is_known_before_the_download(hub):
    hub.files["org/tiny"] = MODEL
    hub.sizes["model.safetensors"] = 10**18
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "too little disk space" in caught.value.what
    assert "HF_HOME" in caught.value.fix
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_a_disk_that_fills_up_meanwhile(hub, monkeypatch):
    import errno

    import huggingface_hub

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.files["org/tiny"] = MODEL
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "No space left on device" in caught.value.why
