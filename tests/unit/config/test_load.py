import time
from pathlib import Path

import pytest

from groundup.config import build_recipe, list_recipes, load_recipe, recipe_text, recipe_to_yaml
from groundup.errors import UserError

GOOD = """\
seed: 3
stages:
  sft:
    from: base-model
    data: rows.jsonl
    learning_rate: 2e-4
  tune:
    kind: dpo
    from: sft
    data: [a.jsonl, b.jsonl]
    learning_rate: 1e-5
    lora: false
"""


def write(folder: Path, text: str, name: str = "my.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def failure(folder: Path, text: str) -> str:
    """What is said about a recipe, with its folder's name taken out."""
    file = write(folder, text)
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    return caught.value.render().replace(str(folder), "").replace("/my.yaml", "my.yaml").replace("\\", "")


def test_numbers_are_yaml_1_2_and_short_forms_are_understood(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.name == "my"
    assert recipe.stages["sft"].kind == "sft"
    assert recipe.stages["sft"].learning_rate == 2e-4
    assert recipe.stages["tune"].learning_rate == 1e-5
    assert recipe.stages["sft"].data.path == ["rows.jsonl"]
    assert recipe.stages["tune"].data.path == ["a.jsonl", "b.jsonl"]
    assert recipe.stages["tune"].lora is False


def test_a_file_name_that_is_no_run_name_is_made_one(tmp_path):
    assert load_recipe(write(tmp_path, GOOD, "my first (try).yaml")).name == "my-first-try-"


def test_on_and_no_are_text_in_yaml_1_2(tmp_path):
    said = failure(tmp_path, GOOD.replace("lora: false", "lora: no"))
    assert "my.yaml:12" in said
    assert (
        'Stage tune: `lora` should be settings (`name: value`, one a line) or `false`, not the text "no".'
        in said
    )
    assert "Write false." in said


# (what is changed in GOOD, by what, what must be said); the line of the recipe is in the text
WRONG = [
    ("learning_rate: 2e-4", "learnin_rate: 2e-4", ["my.yaml:6", "`learnin_rate`", "stage sft", "learning_rate"]),
    ("learning_rate: 2e-4", "learning_rate: 2e-4x", ["my.yaml:6", "a number above 0", '"2e-4x"']),
    ("learning_rate: 2e-4", 'learning_rate: "2e-4"', ["my.yaml:6", "Write 2e-4 without quotes."]),
    ("learning_rate: 2e-4", "learning_rate: -1", ["my.yaml:6", "a number above 0, not -1."]),
    ("learning_rate: 2e-4", "learning_rate:", ["my.yaml:6", "not nothing"]),
    ("learning_rate: 2e-4", "learning_rate: true", ["my.yaml:6", "a number above 0, not true"]),
    ("learning_rate: 2e-4", "max_length: 1e3", ["my.yaml:6", "a whole number above 0, not 1000.0", "Write 1000."]),
    ("learning_rate: 2e-4", "warmup_ratio: 3", ["my.yaml:6", "a number of at least 0 and below 1, not 3."]),
    ("learning_rate: 2e-4", "loss_on: lst", ["my.yaml:6", "`all` or `last`", "Did you mean `last`?"]),
    ("learning_rate: 2e-4", "r: 8", ["my.yaml:6", "`r` is not a setting of stage sft", "It belongs under `lora:`."]),
    ("learning_rate: 2e-4", "zzz: 8", ["my.yaml:6", "groundup recipes --settings sft"]),
    ("learning_rate: 2e-4", "lora: {rr: 8}", ["my.yaml:6", "Stage sft: `rr` is not a setting of `lora`", "`r`?"]),
    ("learning_rate: 2e-4", "lora: {r: [8]}", ["my.yaml:6", "`lora.r` should be a whole number above 0, not a list"]),
    ("learning_rate: 2e-4", "lora:\n      target_modules: [q, 1]", ["my.yaml:7", "`lora.target_modules` item 2"]),
    ("data: rows.jsonl", "data: 7", ["my.yaml:5", "`data` should be a path, a list of paths, or settings"]),
    ("data: rows.jsonl", "data:\n      - a\n      - 3", ["`data.path` item 2 should be text, not 3"]),
    ("data: rows.jsonl", "data:\n      path: a\n      subst: 3", ["my.yaml:7", "`subst`", "`subset`?"]),
    ("data: rows.jsonl", "data: {subset: 3}", ["my.yaml:5", "`path` is missing in `data`", "globs"]),
    ("    data: rows.jsonl\n", "", ["my.yaml:3", "`data` is missing in stage sft"]),
    ("    from: base-model\n", "", ["my.yaml:3", "`from` is missing", "a hub name"]),
    ("from: sft", "from: sftt", ["my.yaml:9", "no stage or folder `sftt`", "Did you mean `sft`?"]),
    ("from: base-model", "from: tune", ["my.yaml:4", "circle", "sft → tune → sft"]),
    ("from: sft", "from: tune", ["my.yaml:9", "circle", "tune → tune"]),
    ("kind: dpo", "kind: dpoo", ["my.yaml:8", "`dpoo` is not a kind of stage", "Did you mean `dpo`?", "pretrain"]),
    ("    kind: dpo\n", "", ["my.yaml:7", "Stage tune needs a `kind`", "clean, tokenizer"]),
    ("    from: base-model", "    beta: 0.1\n    from: base-model", ["`beta` is not a setting of stage sft."]),
    ("  tune:", "  a/b:", ["my.yaml:7", "`a/b` cannot be a stage's name"]),
    ("  tune:", "  models:", ["my.yaml:7", "`models` cannot be a stage's name"]),
    ("seed: 3", "seed: 3\nlearning_rate: 1e-3", ["my.yaml:2", "not a setting of a recipe", "in a stage: sft, tune"]),
    ("seed: 3", "seed: 3\nmodel: x", ["my.yaml:2", "`model` is not a setting of a recipe", "with `from:`"]),
    ("seed: 3", "sed: 3", ["my.yaml:1", "`sed`", "Did you mean `seed`?"]),
    ("seed: 3", "3: seed", ["my.yaml:1", "The key 3 is not text"]),
    ("seed: 3", "chat: {chat_template_kwargs: {1: a}}", ["The key 1 is not text"]),
    ("seed: 3", "name: my run", ["my.yaml:1", "letters, digits", '"my run"']),
    ("seed: 3", "seed: 3\nseed: 4", ["my.yaml:2", "`seed` is given twice"]),
    ("seed: 3", "seed: 3: 4", ["my.yaml:1", "not YAML"]),
    ("    from: sft", "\tfrom: sft", ["my.yaml:9", "replace the tab"]),
    ("data: [a.jsonl, b.jsonl]", "data: [a.jsonl, b.jsonl", ["my.yaml:11", "not YAML"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "said"), WRONG, ids=[after.strip()[:40] or before for before, after, _ in WRONG]
)
def test_a_mistake_is_named_with_its_line_and_a_remedy(tmp_path, before, after, said):
    assert GOOD.count(before) >= 1
    text = failure(tmp_path, GOOD.replace(before, after, 1))
    for part in said:
        assert part in text, text
    assert "things in the recipe" not in text, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "not a list"),
        ("just words", 'not the text "just words"'),
        ("seed: 1\n", "`stages` is missing in a recipe"),
        ("stages:\n", "`stages` should be settings"),
        ("stages: {}\n", "`stages` is empty"),
        ("stages: [sft]\n", "not a list"),
        ("stages:\n  sft: [1]\n", "Stage sft should be settings, not a list"),
        ("stages:\n  merge:\n", "`from` is missing in stage merge"),
        ("stages: !!python/object:os.system x\n", "not YAML"),
        ("a: \x01\n", "is not YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, text, said):
    assert said in failure(tmp_path, text)


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not UTF-8"):
        load_recipe(file)


def test_several_mistakes_are_told_together_in_the_order_of_the_file(tmp_path):
    wrong = GOOD.replace("learning_rate", "lerning_rate").replace("seed: 3", "seed: x").replace("lora", "lra")
    lines = failure(tmp_path, wrong).splitlines()
    assert lines[0] == "Error: 4 things in the recipe are wrong:"
    assert [line.split(":")[1] for line in lines[1:5]] == ["1", "6", "11", "12"]


def test_many_mistakes_are_cut_after_five(tmp_path):
    wrong = GOOD + "".join(f"key{index}: 1\n" for index in range(9))
    lines = failure(tmp_path, wrong).splitlines()
    assert len(lines) == 7
    assert lines[-1] == "  … and 4 more"


def test_wrong_kinds_and_wrong_settings_are_told_together(tmp_path):
    said = failure(tmp_path, GOOD.replace("kind: dpo", "kind: dop").replace("2e-4", "x"))
    assert "my.yaml:8" in said
    assert "my.yaml:6" in said


def test_a_stage_that_is_wrong_itself_is_not_called_missing(tmp_path):
    said = failure(tmp_path, "stages:\n  sft1: {kind: stf}\n  sft2: {kind: sft, from: sft1, data: x}\n")
    assert "there is no stage" not in said


def test_a_stage_of_the_wrong_kind_cannot_feed_another(tmp_path):
    text = "stages:\n  clean: {data: x}\n  pretrain: {from: clean}\n  shards: {from: clean, tokenizer: t}\n"
    said = failure(tmp_path, text)
    assert "my.yaml:3" in said
    assert "makes documents" in said
    assert "a stage of kind shards. Here that is: shards." in said


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (
            "{function: model, model: sft}",
            "`model: sft` makes a model. where: my.yaml:4 fix: Name a stage of kind reward. Here that is: judge.",
        ),
        (
            "{function: model, model: sfft}",
            "there is no stage or folder `sfft`. where: my.yaml:4 fix: Did you mean `sft`?",
        ),
        ("{function: sentiment, model: judge}", "has no classes. where: my.yaml:4 fix: Use function: model"),
        ("{function: model, model: grpo}", "in a circle: grpo"),
        ("{function: model, model: judge}", ""),
        ("{function: sentiment, model: org/name}", ""),
    ],
)
def test_what_a_stage_may_be_rewarded_by(tmp_path, reward, told):
    text = "stages:\n  sft: {from: base, data: x}\n  judge: {kind: reward, from: sft, data: y}\n"
    text += f"  grpo: {{from: sft, data: z, rewards: [{reward}]}}\n"
    if told:
        said = " ".join(failure(tmp_path, text).split())
        assert told in said and "my.yaml:4" in said, said
    else:
        assert load_recipe(write(tmp_path, text)).stages["grpo"].rewards[0].model in ("judge", "org/name")


def test_a_later_stage_a_folder_or_a_hub_name_may_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sftt").mkdir()
    later = GOOD.replace("from: base-model", "from: last") + "  last: {kind: merge, from: hub/model}\n"
    for name in ("org/sftt", "sftt", "other"):
        recipe = load_recipe(write(tmp_path, later.replace("from: sft", f"from: {name}")))
        assert recipe.stages["tune"].from_ == name
        assert recipe.stages["sft"].from_ == "last"


def test_a_mistake_is_found_in_well_under_two_seconds(tmp_path):
    file = write(tmp_path, GOOD.replace("learning_rate: 2e-4", "learnin_rate: 2e-4"))
    began = time.process_time()
    with pytest.raises(UserError):
        load_recipe(file)
    assert time.process_time() - began < 1.0


def test_paths_are_relative_to_here_then_to_the_recipe(tmp_path, monkeypatch):
    beside, here = tmp_path / "recipes", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
    (here / "both.jsonl").touch()
    for name in ("both.jsonl", "beside.jsonl", "part-1.txt", "template.jinja"):
        (beside / name).touch()
    (beside / "base").mkdir()
    monkeypatch.chdir(here)
    file = write(
        beside,
        "chat: {chat_template: template.jinja}\n"
        "stages:\n  sft:\n    from: base\n"
        "    data: [both.jsonl, beside.jsonl, 'part-*.txt', nowhere.jsonl, 'builtin:x']\n"
        "    eval_data: {path: beside.jsonl}\n",
    )
    recipe = load_recipe(file)
    assert recipe.stages["sft"].data.path == [
        "both.jsonl",
        str(beside / "beside.jsonl"),
        str(beside / "part-*.txt"),
        "nowhere.jsonl",
        "builtin:x",
    ]
    assert recipe.stages["sft"].eval_data.path == [str(beside / "beside.jsonl")]
    assert recipe.stages["sft"].from_ == str(beside / "base")
    assert recipe.chat.chat_template == str(beside / "template.jinja")


def test_a_stage_is_never_mistaken_for_a_folder(tmp_path):
    (tmp_path / "sft").mkdir()
    assert load_recipe(write(tmp_path, GOOD)).stages["tune"].from_ == "sft"


def test_the_resolved_recipe_loads_to_an_equal_one(tmp_path):
    recipe = build_recipe(
        {
            "name": "x",
            "description": "数据: on, 2e-4 # no comment",
            "chat": {"chat_template_kwargs": {"enable_thinking": False}, "system_prompt": "a\nb: c\n"},
            "stages": {"sft": {"from": "m", "data": "2e-4", "learning_rate": 1e-5}, "merge": {"from": "sft"}},
        }
    )
    text = recipe_to_yaml(recipe)
    assert load_recipe(write(tmp_path, text)) == recipe
    assert "from_" not in text
    assert "loss_on: all" in text, "defaults are written out"


def test_a_built_recipe_is_not_changed_and_its_errors_name_no_file():
    mapping = {"name": "x", "stages": {"sft": {"from": "m", "data": "d"}}}
    build_recipe(mapping, ["sft.max_steps=3"])
    assert mapping == {"name": "x", "stages": {"sft": {"from": "m", "data": "d"}}}
    with pytest.raises(UserError) as caught:
        build_recipe({"name": "x", "stages": {"sft": {"from": "m"}}})
    assert caught.value.where == ""


@pytest.mark.parametrize("name", [recipe.name for recipe in list_recipes()])
def test_every_shipped_recipe_loads_and_says_what_it_is(name):
    recipe = load_recipe(name)
    assert recipe.description
    assert f"description: {recipe.description}" in recipe_text(name)


def test_an_unknown_recipe_gets_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD, "mine.yaml")
    with pytest.raises(UserError, match="Did you mean `sft-dpo`"):
        load_recipe("sft-dp")
    with pytest.raises(UserError, match=r"Did you mean `mine\.yaml`"):
        load_recipe("mine.yml")
    with pytest.raises(UserError, match="Shipped are:.*sft-dpo"):
        load_recipe("../zzz")


def test_a_run_folder_is_answered_with_its_recipe(tmp_path):
    write(tmp_path, GOOD, "recipe.yaml")
    with pytest.raises(UserError, match=r"groundup run .*recipe\.yaml --out"):
        load_recipe(tmp_path)
