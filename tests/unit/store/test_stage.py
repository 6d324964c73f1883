"""A stage is finished when its manifest says so and its outputs agree; checkpoints are whole or absent."""

import os
import subprocess
import sys

import pytest

from groundup.errors import UserError
from groundup.store import Run, Stage, files


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Run.open(tmp_path / "run").stage("sft")


def finish(stage: Stage, fingerprint: str = "f") -> None:
    stage.started(fingerprint)
    files.write_text(stage.final / "model.safetensors", "weights")
    files.append_jsonl(stage.metrics, {"step": 1})
    stage.finish(fingerprint, {"kind": "sft", "steps": 1})


def write_weights(text):
    return lambda folder: files.write_text(folder / "sub" / "weights", text)


def test_a_finished_stage_gives_its_result_for_its_fingerprint_only(stage):
    assert stage.finished("f") is None and stage.read_result() is None
    finish(stage)
    assert stage.finished("f") == {"kind": "sft", "steps": 1} == stage.read_result()
    assert stage.finished("other") is None
    listed = {entry["path"]: entry for entry in files.read_json(stage.manifest)["files"]}
    assert set(listed) == {"final/model.safetensors", "metrics.jsonl", "result.json"}
    assert listed["final/model.safetensors"]["bytes"] == 7


@pytest.mark.parametrize("harm", ["missing", "longer", "one bit"])
def test_a_changed_output_unfinishes_the_stage(stage, harm):
    finish(stage)
    weights = stage.final / "model.safetensors"
    if harm == "missing":
        weights.unlink()
    else:
        weights.write_text("weights!" if harm == "longer" else "weightr")
    assert stage.finished("f") is None
    assert stage.changed_outputs() == ["final/model.safetensors"]


def test_files_that_are_not_outputs_may_come_and_go(stage):
    finish(stage)
    (stage.root / "notes.txt").write_text("mine")
    stage.publish_checkpoint(1, write_weights("x"))
    assert stage.finished("f") is not None


def test_started_resumes_its_own_fingerprint_and_clears_another(stage):
    assert stage.started("f") is False
    stage.publish_checkpoint(1, write_weights("x"))
    assert stage.started("f") is True and len(stage.checkpoints()) == 1
    assert stage.started("g") is False and stage.checkpoints() == []
    assert stage.started("g") is True


def test_a_new_fingerprint_unfinishes_before_anything_else(stage):
    finish(stage)
    assert stage.started("g") is False
    assert stage.read_result() is None and not stage.final.exists() and not stage.metrics.exists()


def test_clear_leaves_what_is_yours(stage, tmp_path):
    finish(stage)
    files.write_text(tmp_path / "elsewhere" / "events", "precious")
    stage.tensorboard.symlink_to(tmp_path / "elsewhere")
    (stage.root / "notes.txt").write_text("mine")
    stage.clear()
    assert [path.name for path in stage.root.iterdir()] == ["notes.txt"]
    assert (tmp_path / "elsewhere" / "events").read_text() == "precious"


def test_clear_refuses_a_folder_that_no_stage_made(stage):
    files.write_text(stage.data / "thesis.txt", "precious")
    with pytest.raises(UserError, match="no stage made"):
        stage.started("f")
    assert (stage.data / "thesis.txt").exists()


def test_checkpoints_are_sorted_by_step_and_old_ones_go(stage):
    stage.started("f")
    for step in (999_999, 5, 1_000_000):
        stage.publish_checkpoint(step, write_weights(str(step)), keep=2)
    assert [path.name for path in stage.checkpoints()] == ["checkpoint-999999", "checkpoint-1000000"]
    stage.publish_checkpoint(1_000_000, write_weights("again"), keep=1)
    assert [path.name for path in stage.checkpoints()] == ["checkpoint-1000000"]
    assert (stage.checkpoints()[0] / "sub" / "weights").read_text() == "again"


def test_the_newest_written_stays_even_if_its_step_is_lower(stage):
    stage.publish_checkpoint(10, write_weights("x"), keep=1)
    path = stage.publish_checkpoint(5, write_weights("x"), keep=1)
    assert stage.checkpoints() == [path]


def test_an_error_while_writing_a_checkpoint_leaves_the_older_one(stage):
    stage.publish_checkpoint(1, write_weights("x"), keep=1)

    def fail(folder):
        files.write_text(folder / "weights", "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.publish_checkpoint(2, fail, keep=1)
    assert [path.name for path in stage.root.iterdir()] == ["checkpoint-000001"]


def test_leftovers_of_a_crash_are_ignored_and_cleaned(stage):
    stage.started("f")
    files.write_text(stage.root / ".tmp-checkpoint-000009-ab" / "weights", "half")
    files.write_text(stage.data / ".tmp-x-ab", "half")
    assert stage.checkpoints() == []
    assert stage.started("f") is True
    assert [path.name for path in stage.root.rglob(".tmp-*")] == []


def test_the_lock_names_the_process_that_holds_it(stage):
    code = "import sys, pathlib, groundup.store as s\nwith s.Stage(pathlib.Path(sys.argv[1])).lock(): pass"
    command = [sys.executable, "-c", code, str(stage.root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with stage.lock():
        other = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert other.returncode == 1
        assert f"Process {os.getpid()} on" in other.stderr and "already running" in other.stderr
        with pytest.raises(UserError), stage.lock():
            pass
        with Stage(stage.root.parent / "dpo").lock():
            pass
    assert subprocess.run(command, check=False, env=environment).returncode == 0
