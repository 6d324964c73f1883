import errno
import os
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.hub import resolve_data


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("b.jsonl", "a.jsonl", "deep/c.txt", ".hidden/d.txt", "deep/.e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name, found",
    [
        ("a.jsonl", ["a.jsonl"]),
        (".", ["a.jsonl", "b.jsonl", "deep/c.txt"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.txt", ["deep/c.txt"]),
    ],
)
def test_files_folders_and_globs(here, name, found):
    assert resolve_data(name) == [here / file for file in found]


def test_a_relative_name_starts_at_the_given_folder(here):
    assert resolve_data("c.txt", relative_to=here / "deep") == [here / "deep" / "c.txt"]
    assert resolve_data("*.txt", relative_to=here / "deep") == [here / "deep" / "c.txt"]
    assert resolve_data("a.jsonl", relative_to=here / "deep") == [here / "a.jsonl"]


def test_what_is_not_there(here):
    (here / "empty").mkdir()
    with pytest.raises(UserError, match="There is no data file or folder at c.jsonl") as caught:
        resolve_data("c.jsonl")
    assert "a.jsonl" in caught.value.fix
    with pytest.raises(UserError, match="No file matches"):
        resolve_data("*.parquet")
    with pytest.raises(UserError, match="holds no files"):
        resolve_data("empty")
    with pytest.raises(UserError, match="downloads are switched off"):
        resolve_data("org/rows")


def denied(monkeypatch, folder):
    """As if this folder were another user's; tests may run as root, who may read everything."""
    scandir, access, stat = os.scandir, os.access, Path.stat

    def refuse(path):
        if Path(path).resolve() == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    def told(path, **how):
        if folder in path.absolute().parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).resolve() != folder and access(path, mode)
    )
    monkeypatch.setattr(Path, "stat", told)


@pytest.mark.parametrize("name", ["", "sub", "sub/*.jsonl", "**/*.jsonl", "s*/*.jsonl", "sub/a.jsonl"])
def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch, name):
    (tmp_path / "sub").mkdir()
    for place in ("a.jsonl", "sub/a.jsonl"):
        (tmp_path / place).write_text("{}\n")
    before = resolve_data(str(tmp_path / name))
    denied(monkeypatch, tmp_path / "sub")
    with pytest.raises(UserError, match="cannot be read") as caught:
        resolve_data(str(tmp_path / name))
    assert before and "sub" in caught.value.where and "right to read" in caught.value.fix
