"""Where downloads are kept, and what becomes of files that were damaged there."""

import errno
import os
import shutil

import pytest

from groundup.errors import UserError
from groundup.hub import cache_beside, find_dataset, listing, resolve_model

WEIGHTS = bytes(range(256)) * 40
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS}
FULL = 10**18


@pytest.fixture
def model(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    hub.add_model("org/tiny", MODEL)
    return hub


def test_a_damaged_file_is_fetched_again(model, capsys):
    weights = resolve_model("org/tiny").path / "model.safetensors"
    blob = weights.resolve()
    for damage, told in (
        (WEIGHTS[:-10], "10,230 bytes instead of 10,240"),
        (b"x" * len(WEIGHTS), "checksum"),
    ):
        blob.write_bytes(damage)
        os.utime(blob, ns=(1, 1))  # the clock of some file systems is coarse
        model.requests.clear()
        listing.forget()
        assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == WEIGHTS
        assert model.fetched == ["model.safetensors"]
        assert told in capsys.readouterr().err


def test_offline_a_damaged_file_is_no_model(model, online):
    from huggingface_hub import constants

    blob = (resolve_model("org/tiny").path / "model.safetensors").resolve()
    blob.write_bytes(b"x" * len(WEIGHTS))
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "model.safetensors: its content is not what its checksum says" in caught.value.why


def test_the_copy_in_the_cache_serves_where_the_hub_does_not(model, online, capsys):
    first = resolve_model("org/tiny")
    online.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve_model("org/tiny") == first
    assert "The copy of org/tiny in the cache is used" in capsys.readouterr().err


def test_a_newer_commit_shares_what_stayed(model, online):
    import loopback

    first = resolve_model("org/tiny")
    online.setattr(loopback, "COMMIT", "f" * 40)
    model.add_model("org/tiny", MODEL | {"config.json": b'{"new": 1}'})
    model.requests.clear()
    listing.forget()
    second = resolve_model("org/tiny")
    assert second.path.name == "f" * 40 != first.path.name
    assert model.fetched == ["config.json"]


def test_too_little_disk_space_is_known_before_the_download(model):
    model.sizes["model.safetensors"] = FULL
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "too little disk space" in caught.value.what
    assert "1,000,000,000.0 GB" in caught.value.why
    assert "HF_HOME" in caught.value.fix
    assert not model.fetched


def test_where_the_cache_has_no_room_the_runs_folder_takes_it(model, online, tmp_path, capsys):
    usage = shutil.disk_usage

    def little(path):
        return usage(path)._replace(free=10 if "hub-cache" in str(path) else 10**9)

    (tmp_path / "hub-cache").mkdir()
    online.setattr(shutil, "disk_usage", little)
    with cache_beside(tmp_path / "run/downloads"):
        folder = resolve_model("org/tiny").path
        assert folder.is_relative_to(tmp_path / "run/downloads")
        assert "0 kB are free" in capsys.readouterr().err
        model.requests.clear()
        assert resolve_model("org/tiny").path == folder
    assert not model.fetched


def test_a_cache_that_cannot_be_made(model, tmp_path, capsys):
    (tmp_path / "hub-cache").write_text("a file")
    with cache_beside(tmp_path / "run/downloads"):
        assert resolve_model("org/tiny").path.is_relative_to(tmp_path / "run/downloads")
    assert "cannot be written" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run")
    assert resolve_model("org/tiny").path.is_relative_to(tmp_path / "groundup-cache")
    shutil.rmtree(tmp_path / "groundup-cache")
    (tmp_path / "groundup-cache").write_text("a file too")
    assert resolve_model("org/tiny").path.is_relative_to(tmp_path / "tmp")


def test_no_place_at_all(model, tmp_path, monkeypatch):
    for name in ("hub-cache", "groundup-cache"):
        (tmp_path / name).write_text("a file")
    monkeypatch.setattr("groundup.hub.cache._is_ours", lambda folder: False)
    with pytest.raises(UserError, match="org/tiny cannot be stored") as caught:
        resolve_model("org/tiny")
    assert "HF_HOME" in caught.value.fix
    assert "hub-cache: it cannot be written" in caught.value.why


def test_a_cache_that_cannot_be_locked(model, tmp_path, monkeypatch, capsys):
    from filelock import FileLock

    acquire = FileLock.acquire

    def no_locks(self, *arguments, **options):
        if "hub-cache" in self.lock_file:
            raise OSError(errno.ENOLCK, "No locks available")
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    assert resolve_model("org/tiny").path.is_relative_to(tmp_path / "groundup-cache")
    assert "cannot be locked: No locks available" in capsys.readouterr().err


def test_a_whole_copy_in_a_cache_that_only_others_may_write(model, monkeypatch):
    first = resolve_model("org/tiny")
    listing.forget()
    monkeypatch.setattr("groundup.hub.download.trouble", lambda cache, size: ("it cannot be written", False))
    assert resolve_model("org/tiny") == first


def test_data_sets_go_where_HF_DATASETS_CACHE_says(model, online, tmp_path):
    online.setenv("HF_DATASETS_CACHE", str(tmp_path / "data"))
    model.add_dataset("org/rows", {"train.jsonl": b"{}\n"})
    assert find_dataset("org/rows").fetch(["train.jsonl"])[0].is_relative_to(tmp_path / "data")
    assert resolve_model("org/tiny").path.is_relative_to(tmp_path / "hub-cache")


def test_a_disk_that_fills_up_meanwhile(model, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("groundup.hub.blobs._stream", full)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "No space left on device" in caught.value.why
