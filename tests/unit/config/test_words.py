from typing import Literal

import pytest
from pydantic import BaseModel

from groundup.config import SETTINGS, settings_text, words
from groundup.config.rewards import RewardSettings
from groundup.config.schema import STAGE_KINDS, Recipe, SourceSettings


def places(path=(), kinds=None):
    """Every place of the schema, walked."""
    model = words.model_at(path, kinds)
    for name in words.fields(model) if model else ():
        yield (*path, name)
        if name != "stages":
            yield from places((*path, name), kinds)


@pytest.mark.parametrize("kind", STAGE_KINDS)
def test_every_setting_has_a_place_and_words(kind):
    kinds = {"s": kind}
    found = [*places((), kinds), *places(("stages", "s"), kinds)]
    assert ("seed",) in found
    for path in found:
        annotation = words.annotation_at(path, kinds)
        assert annotation is not None, path
        assert words.expected(annotation), path
    count = sum(len(path) == 3 for path in found if path[0] == "stages")
    assert count == len(STAGE_KINDS[kind].model_fields)


def test_places_that_do_not_exist():
    kinds = {"s": "sft"}
    for path in (
        ("zzz",),
        ("stages", "t"),
        ("stages", "s", "zzz"),
        ("seed", "x"),
        ("stages", "s", "lora", "zzz"),
    ):
        assert words.annotation_at(path, kinds) is None


def test_every_kind_of_setting_is_listed_with_default_and_meaning():
    for kind, model in SETTINGS.items():
        assert issubclass(model, BaseModel)
        text = settings_text(kind)
        for name in words.fields(model):
            assert f"  {name}:" in text or name in ("kind", "stages"), (kind, name)
    lines = {line.split("#")[0].strip(): line for line in settings_text("sft").splitlines()}
    assert "a number above 0" in lines["learning_rate: 0.0002"]
    assert "required" in lines["from:"]
    assert "r: 16" in lines
    assert SETTINGS["recipe"] is Recipe


@pytest.mark.parametrize(
    ("kind", "name", "entry"),
    [
        ("grpo", "rewards", RewardSettings),
        ("ppo", "rewards", RewardSettings),
        ("clean", "mix", SourceSettings),
    ],
)
def test_a_list_of_settings_shows_what_an_entry_holds(kind, name, entry):
    lines = settings_text(kind).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"  {name}:"))
    assert "a list of settings (`- name: value`); " in lines[at]
    keys = list(words.fields(entry))
    shown = lines[at + 1 : at + 1 + len(keys)]
    assert [line.split(":")[0] for line in shown] == [
        f"    - {keys[0]}",
        *(f"      {key}" for key in keys[1:]),
    ]
    after = lines[at + 1 + len(keys)]
    assert after.startswith("  ") and not after.startswith("   ")


def test_what_a_list_holds_in_words():
    assert words.expected(list[str]) == "a list of text"
    assert words.expected(list[Literal["c4", "fineweb"]]) == "a list of `c4` or `fineweb`"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "nothing"),
        (True, "true"),
        (1.0, "1.0"),
        (3, "3"),
        ("x", 'the text "x"'),
        ([1], "a list"),
        ({}, "settings"),
    ],
)
def test_values_in_words(value, said):
    assert words.given(value) == said


def test_nearest_is_none_when_nothing_is_near():
    assert words.nearest("learnin_rate", ["learning_rate", "beta"]) == "learning_rate"
    assert words.nearest("zzz", ["learning_rate", "beta"]) is None
