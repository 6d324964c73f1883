"""The bootstrap, without installing anything: what it would run, and what it says when it cannot."""

import ast
import importlib.util
import sys
import types
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "tools" / "setup.py"
CONFLICT = "    The user requested torch==2.13.0+cpu\nERROR: ResolutionImpossible: for help visit pip's site"


@pytest.fixture
def setup(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("groundup_setup", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\ntorch==2.13.0\n")
    (tmp_path / ".venv").mkdir()
    for name, path in (
        ("ROOT", tmp_path),
        ("CONSTRAINTS", tmp_path / "constraints.txt"),
        ("STAMP", tmp_path / ".venv" / "setup.json"),
        ("VENV_PYTHON", Path(sys.executable)),
    ):
        monkeypatch.setattr(module, name, path)
    return module


def on_system(setup, monkeypatch, system, gpu=False):
    monkeypatch.setattr(setup, "platform", types.SimpleNamespace(system=lambda: system))
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: gpu)


def torch_commands(setup, monkeypatch, found_at):
    """Arguments of every pip call; the one with that number succeeds."""
    calls = []

    def pip(arguments, what="", may_lack=""):
        calls.append(arguments[2:])
        return len(calls) == found_at

    monkeypatch.setattr(setup, "pip", pip)
    setup.install_torch()
    return calls


def test_older_pythons_can_read_it_to_be_told():
    ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_linux_without_a_gpu_never_gets_cuda(setup, monkeypatch):
    on_system(setup, monkeypatch, "Linux")
    assert torch_commands(setup, monkeypatch, found_at=1) == [["torch==2.13.0+cpu"]]
    assert torch_commands(setup, monkeypatch, found_at=2) == [
        ["torch==2.13.0+cpu"],
        ["torch==2.13.0+cpu", "--extra-index-url", setup.CPU_WHEELS],
    ]


@pytest.mark.parametrize("system, gpu", [("Linux", True), ("Darwin", False), ("Windows", False)])
def test_elsewhere_the_usual_build(setup, monkeypatch, system, gpu):
    on_system(setup, monkeypatch, system, gpu)
    assert torch_commands(setup, monkeypatch, found_at=1) == [["torch==2.13.0"]]


@pytest.mark.parametrize(
    "output, lacking",
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", True),
        (CONFLICT, True),
        ("ERROR: No space left on device", False),
    ],
)
def test_an_index_without_the_cpu_build(setup, output, lacking):
    assert setup.is_lacking("torch==2.13.0+cpu", output) == lacking


def test_nothing_is_done_twice_until_something_changes(setup):
    import json

    assert not setup.is_done(test=False)
    setup.STAMP.write_text(json.dumps({"inputs": setup.inputs_hash(), "test": False}))
    assert setup.is_done(test=False)
    assert not setup.is_done(test=True)
    setup.CONSTRAINTS.write_text("torch==2.14.0\n")
    assert not setup.is_done(test=False)


def test_too_old_a_python_and_no_other(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        setup.find_python()
    assert caught.value.code == 2
    assert "Python 3.11 or newer is needed" in capsys.readouterr().err


def test_too_old_a_python_and_a_newer_one_on_the_path(setup, monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(setup.shutil, "which", lambda name: sys.executable if name == "python3.12" else None)
    assert setup.find_python() == sys.executable


def test_a_python_without_venv_names_the_debian_package(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup, "missing_modules", lambda: ["ensurepip"])
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit):
        setup.find_python()
    assert "sudo apt install python3-venv" in capsys.readouterr().err


def test_too_little_disk_space(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**9))
    with pytest.raises(SystemExit):
        setup.check_machine()
    assert "GB of disk space are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "output, why",
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full."),
        ("ProxyError('Cannot connect to proxy.')", "The proxy refuses the connection."),
        ("NewConnectionError: Failed\nERROR: No matching distribution found for torch", "cannot be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "There is no PyTorch 2.13.0"),
        (CONFLICT, "There is no PyTorch 2.13.0"),
        ("something new", "see the lines above"),
    ],
)
def test_why_pip_failed(setup, capsys, output, why):
    code = f"print({output!r}); raise SystemExit(1)"
    with pytest.raises(SystemExit) as caught:
        setup.run([sys.executable, "-c", code], "It failed.", log=None)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert output.splitlines()[-1] in said
    assert why in said


def test_what_pip_does_in_plain_words(setup):
    lines = ["Collecting torch", "  Downloading torch-2.13.0%2Bcpu-cp311.whl (190.6 MB)", "Looking in links"]
    assert setup.activity(lines) == "downloading torch (190.6 MB)"
    assert setup.activity(lines[:1]) == "looking for torch"
    assert setup.activity(["Installing collected packages: torch"]) == "unpacking"
