"""The order of stages, and which of them are chosen."""

import pytest

from groundup.config import build_recipe
from groundup.errors import UserError
from groundup.stages.run import choose_stages

STAGES = {
    "eval": {"from": "merge"},
    "merge": {"from": "dpo-b"},
    "dpo-b": {"kind": "dpo", "from": "sft", "data": "p"},
    "dpo-a": {"kind": "dpo", "from": "sft", "data": "p"},
    "sft": {"from": "pretrain", "data": "c"},
    "pretrain": {"from": "shards"},
    "shards": {"from": "clean", "tokenizer": "tokenizer"},
    "tokenizer": {"from": "clean"},
    "clean": {"data": "t"},
}
ORDER = ["clean", "tokenizer", "shards", "pretrain", "sft", "dpo-b", "merge", "eval", "dpo-a"]


@pytest.fixture
def recipe():
    return build_recipe({"name": "upside-down", "stages": STAGES})


@pytest.mark.parametrize(
    ("only", "first", "last", "expected"),
    [
        ([], None, None, ORDER),
        (["merge", "clean"], None, None, ["clean", "merge"]),
        ([], "merge", None, ["merge", "eval", "dpo-a"]),
        ([], None, "shards", ["clean", "tokenizer", "shards"]),
        ([], "sft", "dpo-b", ["sft", "dpo-b"]),
        ([], "sft", "sft", ["sft"]),
    ],
)
def test_choosing(recipe, only, first, last, expected):
    assert choose_stages(recipe, only, first, last) == expected


def test_the_recipes_order_stays_where_it_can():
    names = ["b", "a", "c"]
    recipe = build_recipe(
        {"name": "x", "stages": {n: {"kind": "sft", "from": "m/m", "data": "d"} for n in names}}
    )
    assert choose_stages(recipe, (), None, None) == names


@pytest.mark.parametrize("options", [(["no"], None, None), ((), "no", None), ((), None, "no")])
def test_no_such_stage(recipe, options):
    with pytest.raises(UserError, match="no stage 'no'") as error:
        choose_stages(recipe, *options)
    assert "sft" in error.value.fix


def test_from_behind_until(recipe):
    with pytest.raises(UserError, match="'eval' comes after stage 'sft'"):
        choose_stages(recipe, (), "eval", "sft")
