"""A run folder is checked when it is opened, and knows its stages' order."""

import errno
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.store import Run, files


def test_open_makes_parents_and_leaves_nothing_behind(tmp_path):
    run = Run.open(tmp_path / "a" / "b")
    assert run.root.is_dir() and list(run.root.iterdir()) == [] and run.name == "b"


def test_open_refuses_a_file_and_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError) as caught:
            Run.open(path)
        assert "is a file" in caught.value.why and caught.value.fix
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_open_explains_a_disk_that_cannot_be_written_and_removes_what_it_made(
    tmp_path, monkeypatch, number, word
):
    def refuse(self, data):
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError) as caught:
        Run.open(tmp_path / "a" / "b")
    assert word in caught.value.why and caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_open_where_no_folder_can_be_made():
    with pytest.raises(UserError):
        Run.open("/proc/none/run")


def test_open_to_read_lists_runs_nearby_nearest_first(tmp_path):
    for name in ("other", "demo"):
        files.write_text(tmp_path / "runs" / name / "recipe.yaml", "name: x\n")
    (tmp_path / "runs" / "not-a-run").mkdir()
    with pytest.raises(UserError) as caught:
        Run.open(tmp_path / "runs" / "dmeo", create=False)
    assert caught.value.fix.index("demo") < caught.value.fix.index("other")
    assert "not-a-run" not in caught.value.fix
    with pytest.raises(UserError, match="Runs nearby"):
        Run.open(tmp_path, create=False)
    assert Run.open(tmp_path / "runs" / "demo", create=False).name == "demo"


def test_open_to_read_with_nothing_around_says_how_to_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="groundup run demo"):
        Run.open("nothing/here", create=False)


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a\\b", "a b", "models", "Report_Files", "recipe.yaml", "a."]
)
def test_bad_stage_names(tmp_path, name):
    with pytest.raises(UserError):
        Run.open(tmp_path).stage(name)


def test_stages_come_in_the_recipes_order(tmp_path):
    run = Run.open(tmp_path)
    assert run.stages() == [] and run.planned_stages() == {}
    files.write_text(
        run.recipe, "name: x\nstages:\n  zeta: {kind: clean}\n  alpha: {kind: sft, learning_rate: 2e-4}\n"
    )
    for name in ("alpha", "gone", "zeta"):
        run.stage(name).started("f")
    (run.root / "models").mkdir()
    assert [stage.name for stage in run.stages()] == ["zeta", "alpha", "gone"]
    assert run.planned_stages()["alpha"]["learning_rate"] == 2e-4
