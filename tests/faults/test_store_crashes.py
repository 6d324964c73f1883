"""Killed at the worst moment, on a full disk, with a flipped bit: what is on the disk is whole or absent."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from groundup.errors import UserError
from groundup.store import Run, files

PRELUDE = """
import os, signal, sys
from pathlib import Path
from groundup.store import Run, atomic, files
stage = Run.open(sys.argv[1]).stage("sft")
def die(*ignored): os.kill(os.getpid(), signal.SIGKILL)
def weights(folder): files.write_text(folder / "weights", "whole")
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


def run_and_die(folder, code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PRELUDE + code, str(folder)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_killed_while_writing_a_file(tmp_path, moment):
    path = tmp_path / "state.json"
    files.write_json(path, "old")
    run_and_die(tmp_path, f"{moment} = die\nfiles.write_json(Path(sys.argv[1]) / 'state.json', 'new')")
    assert files.read_json(path) == "old"


@pytest.mark.parametrize("moment", ["atomic.sync_tree", "os.replace"])
def test_killed_while_publishing_a_checkpoint(tmp_path, moment):
    stage = Run.open(tmp_path).stage("sft")
    stage.started("f")
    stage.publish_checkpoint(1, lambda folder: files.write_text(folder / "weights", "whole"))
    run_and_die(
        tmp_path,
        f"def half(folder):\n    (folder / 'weights').write_text('ha')\n    {moment} = die\n"
        "stage.publish_checkpoint(2, half, keep=1)",
    )
    assert [path.name for path in stage.checkpoints()] == ["checkpoint-000001"]
    assert stage.started("f") is True
    assert sorted(path.name for path in stage.root.iterdir()) == ["checkpoint-000001", "started.json"]


def test_killed_while_removing_an_old_checkpoint(tmp_path):
    stage = Run.open(tmp_path).stage("sft")
    stage.started("f")
    stage.publish_checkpoint(1, lambda folder: files.write_text(folder / "weights", "whole"))
    run_and_die(tmp_path, "import shutil; shutil.rmtree = die\natomic.remove(stage.checkpoints()[0])")
    assert stage.checkpoints() == []


def test_killed_while_clearing_resumes_nothing(tmp_path):
    stage = Run.open(tmp_path).stage("sft")
    stage.started("f")
    stage.publish_checkpoint(1, lambda folder: files.write_text(folder / "weights", "whole"))
    files.append_jsonl(stage.metrics, {"step": 1})
    run_and_die(tmp_path, "atomic.remove = die\nstage.started('g')")
    assert stage.started("f") is False
    assert [path.name for path in stage.root.iterdir()] == ["started.json"]


def test_killed_before_the_manifest_is_not_finished(tmp_path):
    run_and_die(
        tmp_path,
        "stage.started('f')\nweights(stage.final)\nfiles.hash_file = die\nstage.finish('f', {'kind': 'sft'})",
    )
    stage = Run.open(tmp_path).stage("sft")
    assert stage.finished("f") is None and stage.read_result() is None
    assert stage.started("f") is True


def test_a_killed_process_frees_its_lock(tmp_path):
    run_and_die(tmp_path, "with stage.lock(): die()")
    with Run.open(tmp_path).stage("sft").lock():
        pass


def test_a_full_disk_while_writing_a_checkpoint(tmp_path, monkeypatch):
    stage = Run.open(tmp_path).stage("sft")
    stage.started("f")
    stage.publish_checkpoint(1, lambda folder: files.write_text(folder / "weights", "whole"), keep=1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        stage.publish_checkpoint(2, lambda folder: (folder / "weights").touch(), keep=1)
    assert "full" in caught.value.why and caught.value.fix
    assert sorted(path.name for path in stage.root.iterdir()) == ["checkpoint-000001", "started.json"]


def test_a_full_disk_that_a_library_reports_in_its_own_words(tmp_path):
    def library(folder):
        raise RuntimeError("Io(Os { code: 28, kind: StorageFull, message: No space left on device })")

    with pytest.raises(UserError, match="full"):
        files.publish_folder(tmp_path / "final", library)
    with pytest.raises(ZeroDivisionError):
        files.publish_folder(tmp_path / "final", lambda folder: 1 / 0)


def test_a_flipped_bit_in_the_weights_unfinishes_the_stage(tmp_path):
    stage = Run.open(tmp_path).stage("sft")
    stage.started("f")
    files.write_text(stage.final / "model.safetensors", "w" * 5000)
    stage.finish("f", {"kind": "sft"})
    with (stage.final / "model.safetensors").open("r+b") as file:
        file.seek(2500)
        file.write(bytes([ord("w") ^ 1]))
    assert stage.finished("f") is None and stage.changed_outputs() == ["final/model.safetensors"]
