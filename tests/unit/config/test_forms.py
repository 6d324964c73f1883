"""Forms of a recipe: what `--form` changes, and that a mistake in any of them shows."""

import pytest

from groundup.config import list_recipes, load_recipe, recipe_to_yaml, recipes
from groundup.errors import UserError

TEXT = """\
description: Small.
stages:
  sft: {from: m, data: {path: rows.jsonl, subset: 16}, max_steps: 5}
forms:
  full:
    sft.data.subset: 0
    max_steps: 0
    seed: 3
  tiny: {sft.data: other.jsonl}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(TEXT)
    return path


def test_as_it_is_written(file):
    recipe = load_recipe(file)
    assert (recipe.name, recipe.seed, recipe.stages["sft"].max_steps) == ("my", 0, 5)
    assert recipe.stages["sft"].data.subset == 16


def test_a_form_changes_its_settings_and_the_name(file):
    recipe = load_recipe(file, form="full")
    assert (recipe.name, recipe.seed, recipe.stages["sft"].max_steps) == ("my-full", 3, 0)
    assert (recipe.stages["sft"].data.path, recipe.stages["sft"].data.subset) == (["rows.jsonl"], 0)
    assert load_recipe(file, form="tiny").stages["sft"].data.path == ["other.jsonl"]


def test_an_option_goes_before_a_form(file):
    assert load_recipe(file, ["sft.max_steps=2"], "full").stages["sft"].max_steps == 2


def test_a_run_keeps_the_chosen_form_alone(file, tmp_path):
    written = tmp_path / "recipe.yaml"
    written.write_text(recipe_to_yaml(load_recipe(file, form="full")))
    assert "forms" not in written.read_text()
    assert load_recipe(written) == load_recipe(file, form="full")


def failure(file, text, form=None):
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(file, form=form)
    return caught.value.render()


@pytest.mark.parametrize("form", [None, "full"])
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("    seed: 3", "    sed: 3", ["my.yaml:8", "Form full, sed: unknown.", "Did you mean `seed`?"]),
        ("sft.data: other", "stf.data: other", ["my.yaml:9", "Form tiny, stf.data: unknown.", "`sft`?"]),
        ("    seed: 3", "    forms.x: 3", ["my.yaml:8", "chosen, not set", "--form"]),
        ("    seed: 3", "    sft.kind: dpo", ["my.yaml:8", "cannot be changed"]),
        ("  tiny: {sft.data: other.jsonl}", "  tiny: 7", ["my.yaml:9", "`forms.tiny` should be settings", "not 7."]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_form_shows_whichever_is_chosen(file, form, before, after, said):
    text = failure(file, TEXT.replace(before, after), form)
    for part in said:
        assert part in text


def test_a_wrong_value_is_told_with_the_forms_line(file):
    text = failure(file, TEXT.replace("max_steps: 0", "max_steps: x"), "full")
    assert "my.yaml:7" in text and "`max_steps` should be a whole number" in text
    file.write_text(TEXT.replace("max_steps: 0", "max_steps: x"))
    assert load_recipe(file, form="tiny"), "a value is looked at when its form is chosen"


def test_a_form_that_is_not_there(file):
    assert "It has: full, tiny." in failure(file, TEXT, "fulll")
    assert "one form only" in failure(file, TEXT.partition("forms:")[0], "full")


def test_a_form_is_not_set_from_the_command_line(file):
    with pytest.raises(UserError, match="chosen, not set"):
        load_recipe(file, ["forms.full.seed=4"])


def test_shipped_forms_are_listed(file, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "recipes_folder", lambda: tmp_path)
    assert list_recipes() == [("my", "Small.", ("full", "tiny"))]
