import shutil

import pytest

from groundup.config import list_recipes, load_recipe, recipe_text, recipes
from groundup.config.recipes import copy_recipe
from groundup.errors import UserError


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped recipes with data."""
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.jsonl").write_text("{}\n")
    (folder / "small.yaml").write_text(
        "# a comment\ndescription: Small.\nstages:\n  sft: {from: org/model, data: [data/rows.jsonl]}\n"
    )
    monkeypatch.setattr(recipes, "recipes_folder", lambda: folder)
    return folder


def test_listed_with_their_description(shipped):
    assert list_recipes() == [("small", "Small.", ())]


def test_data_of_a_shipped_recipe_is_found_from_anywhere(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("small").stages["sft"].data.path == [str(shipped / "data" / "rows.jsonl")]


def test_copying_keeps_comments_and_takes_the_data_along(shipped, tmp_path):
    target = tmp_path / "work" / "mine.yaml"
    assert copy_recipe("small", target) == [target, tmp_path / "work" / "data" / "rows.jsonl"]
    assert target.read_text() == recipe_text("small")
    shutil.rmtree(shipped)
    assert load_recipe(target).stages["sft"].data.path == [str(tmp_path / "work" / "data" / "rows.jsonl")]


def test_copying_overwrites_nothing(shipped, tmp_path):
    target = tmp_path / "mine.yaml"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("mine\n")
    with pytest.raises(UserError, match=r"rows\.jsonl is there already"):
        copy_recipe("small", target)
    assert not target.exists(), "nothing half-written"
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    copy_recipe("small", target)
    with pytest.raises(UserError, match=r"mine\.yaml is there already"):
        copy_recipe("small", target)


@pytest.mark.parametrize("name", ["nothing", "../package/small", "", "."])
def test_unknown_names(shipped, name):
    with pytest.raises(UserError, match="There is no recipe"):
        recipe_text(name)
