"""Every recipe that ships is right."""

from pathlib import Path

import pytest

from groundup.config import list_recipes, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "src" / "groundup" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_loads_by_name_and_by_path(file):
    assert load_recipe(file.stem) == load_recipe(str(file))


def test_every_recipe_is_listed():
    listed = {str(getattr(entry, "name", entry)) for entry in list_recipes()}
    assert {file.stem for file in RECIPES} <= listed
    assert "demo" in listed
