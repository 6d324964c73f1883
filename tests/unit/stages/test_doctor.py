"""The doctor's screen: every problem names its fix, and a run's record is compared."""

import json
from dataclasses import replace

import pytest

from groundup.errors import UserError
from groundup.machine import Machine
from groundup.stages import doctor as module
from groundup.store import Run, environment, files

MACHINE = Machine(
    platform="Linux-6",
    python="3.11.2",
    cpu_name="A processor",
    cores=2,
    threads=4,
    memory_bytes=8 * 10**9,
    available_bytes=6 * 10**9,
    gpus=(),
    torch_version="2.13.0",
)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(module, "probe", lambda: MACHINE)
    monkeypatch.setattr(
        module, "measure_dtypes", lambda shapes, seconds, device: {"float32": 100.0, "bfloat16": 250.0}
    )
    monkeypatch.setattr(module, "OPTIONAL_PACKAGES", {})
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "ENOUGH_DISK_BYTES", 0)


def problems(machine: Machine = MACHINE) -> dict[str, module.Finding]:
    found = module.examine(machine, {"float32": 100.0, "bfloat16": 250.0})
    return {finding.label: finding for finding in found if finding.problem}


def test_a_sound_machine_has_no_problem_and_fits_one_screen(capsys):
    module.doctor(None, False)
    printed = capsys.readouterr().out
    assert "Nothing is missing." in printed and len(printed.splitlines()) < 24
    for words in ("3.11.2", "A processor", "none: everything runs on the CPU", "2.5 times", "8.0 GB"):
        assert words in printed


def test_what_the_machine_lacks_is_a_problem_with_a_fix():
    assert list(problems()) == []
    found = problems(replace(MACHINE, available_bytes=10**9))
    assert list(found) == ["Memory"] and found["Memory"].fix


def test_a_full_disk_a_blind_pytorch_and_a_missing_package(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_DISK_BYTES", 1e18)
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        module, "OPTIONAL_PACKAGES", {"no_such_module": ("a test", "pip install no-such-module")}
    )
    found = problems()
    assert list(found) == ["Disk", "GPU", "Optional"]
    assert found["Optional"].fix == "pip install no-such-module" and all(item.fix for item in found.values())


def test_a_cache_that_cannot_be_written_names_hf_home(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/proc/self/cache")
    assert "HF_HOME" in problems()["Model cache"].fix


def test_against_an_earlier_run(tmp_path, capsys):
    run = Run.open(tmp_path / "run")
    files.write_text(run.recipe, "name: x\n")
    with pytest.raises(UserError, match=r"environment\.json"):
        module.doctor(run.root, False)
    files.write_json(run.environment, environment.collect())
    module.doctor(run.root, False)
    assert "no differences" in capsys.readouterr().out
    files.write_json(run.environment, {**environment.collect(), "python": "2.7"})
    module.doctor(run.root, False)
    assert "python: 2.7 then" in capsys.readouterr().out
    with pytest.raises(UserError, match="not a run"):
        module.doctor(tmp_path, False)


def test_json_is_only_json(capsys):
    module.doctor(None, True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["machine"]["cores"] == 2 and shown["dtype"] == "bfloat16" and shown["differences"] is None


def test_hubs(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("GROUNDUP_MIRRORS", "none")
    monkeypatch.setenv("HF_ENDPOINT", "hub.org")
    assert "HF_ENDPOINT=https://hub.org" in problems()["Hubs"].fix
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.org")
    assert "Hubs" not in problems()
