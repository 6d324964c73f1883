"""The environment's record holds what matters, no secret, and tells differences in plain words."""

import platform

import numpy

from groundup.store import environment, files


def test_collect_holds_versions_and_is_plain_data(tmp_path):
    found = environment.collect()
    assert found["python"] == platform.python_version() and found["cores"] >= 1
    assert found["packages"]["numpy"] == numpy.__version__
    files.write_json(tmp_path / "environment.json", found)
    assert files.read_json(tmp_path / "environment.json") == found


def test_collect_writes_no_secret_down(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example/hf")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment.collect()
    assert "secret" not in str(found)
    assert found["variables"]["HF_ENDPOINT"] == "https://mirror.example/hf"
    assert found["variables"]["OMP_NUM_THREADS"] == "3"


def test_differences_are_lines_for_people():
    then = {"python": "3.11", "packages": {"torch": "2.12", "gone": "1"}, "variables": {"HF_HOME": "/a"}}
    now = {"python": "3.12", "packages": {"torch": "2.13", "new": "2"}, "variables": {}}
    assert environment.differences(then, now) == [
        "python: 3.11 then, 3.12 now",
        "gone: 1 then, not installed now",
        "new: not installed then, 2 now",
        "torch: 2.12 then, 2.13 now",
        "HF_HOME: /a then, not set now",
    ]
    assert environment.differences(then, then) == []
