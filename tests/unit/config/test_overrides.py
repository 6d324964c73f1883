import pytest

from groundup.config import build_recipe
from groundup.errors import UserError

ONE = {"name": "x", "stages": {"sft": {"from": "m", "data": "d.jsonl"}}}
TWO = {
    "name": "x",
    "stages": {
        "sft": {"from": "m", "data": "d.jsonl", "lora": False},
        "a.b": {"kind": "dpo", "from": "sft", "data": "p"},
    },
}


@pytest.mark.parametrize(
    ("text", "get", "value"),
    [
        ("seed=7", lambda r: r.seed, 7),
        ("chat.system_prompt=Be brief.", lambda r: r.chat.system_prompt, "Be brief."),
        ("chat.system_prompt=", lambda r: r.chat.system_prompt, None),
        ("chat.chat_template_kwargs.think=false", lambda r: r.chat.chat_template_kwargs, {"think": False}),
        ("stages.sft.learning_rate=1e-5", lambda r: r.stages["sft"].learning_rate, 1e-5),
        ("sft.learning_rate=1e-5", lambda r: r.stages["sft"].learning_rate, 1e-5),
        ("a.b.learning_rate=1e-6", lambda r: r.stages["a.b"].learning_rate, 1e-6),
        ("beta=0.3", lambda r: r.stages["a.b"].beta, 0.3),
        ("sft.lora.r=4", lambda r: r.stages["sft"].lora.r, 4),
        ("sft.lora={r: 4, target_modules: [q_proj]}", lambda r: r.stages["sft"].lora.target_modules, ["q_proj"]),
        ("sft.data.subset=9", lambda r: (r.stages["sft"].data.path, r.stages["sft"].data.subset), (["d.jsonl"], 9)),
        ("sft.data=*.jsonl", lambda r: r.stages["sft"].data.path, ["*.jsonl"]),
        ("sft.data=[a, b]", lambda r: r.stages["sft"].data.path, ["a", "b"]),
        ("sft.data.columns.prompt=question", lambda r: r.stages["sft"].data.columns, {"prompt": "question"}),
        ("sft.from=a=b", lambda r: r.stages["sft"].from_, "a=b"),
    ],
)  # fmt: skip
def test_one_setting_is_changed(text, get, value):
    before, after = build_recipe(TWO), build_recipe(TWO, [text])
    assert get(after) == value
    assert before != after or value is None


def test_later_ones_win():
    assert build_recipe(ONE, ["sft.max_steps=1", "sft.max_steps=2"]).stages["sft"].max_steps == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sft.learnin_rate=3",
            ["--set sft.learnin_rate: unknown", "stage sft", "Did you mean `learning_rate`?"],
        ),
        (
            "stages.sft.learnin_rate=3",
            ["--set stages.sft.learnin_rate: unknown", "Did you mean `learning_rate`?"],
        ),
        ("learning_rate=3", ["more than one stage", "sft.learning_rate, a.b.learning_rate"]),
        ("stf.learning_rate=3", ["--set stf.learning_rate: unknown", "Did you mean `sft`?"]),
        ("stages.stf.learning_rate=3", ["no such stage", "Did you mean `sft`?"]),
        ("sed=3", ["--set sed: unknown", "Did you mean `seed`?"]),
        ("seed.x=3", ["--set seed.x: unknown", "`seed` has no settings of its own"]),
        ("sft.data.path.0=x", ["`data.path` has no settings of its own"]),
        ("sft=3", ["a setting of the stage is missing"]),
        ("stages=3", ["no such stage"]),
        ("sft.kind=dpo", ["cannot be changed"]),
        ("seed", ["not of the form name=value"]),
        ("=3", ["not of the form name=value"]),
        ("sft..r=3", ["not of the form name=value"]),
        ("sft.data={", ["the value is not YAML"]),
        ("sft.lora.rr=3", ["--set sft.lora.rr: unknown", "`lora`", "Did you mean `r`?"]),
        (
            "sft.learning_rate=2e-4x",
            ["--set sft.learning_rate=2e-4x", 'a number above 0, not the text "2e-4x"'],
        ),
        ("sft.lora.r=0.5", ["--set sft.lora.r=0.5", "`lora.r` should be a whole number above 0"]),
    ],
)
def test_a_mistake_names_the_option(text, said):
    with pytest.raises(UserError) as caught:
        build_recipe(TWO, [text])
    for part in said:
        assert part in caught.value.render()


def test_a_wrong_value_in_a_file_is_not_blamed_on_an_option(tmp_path):
    from groundup.config import load_recipe

    file = tmp_path / "my.yaml"
    file.write_text("stages:\n  sft:\n    from: m\n    data: d\n    max_steps: x\n")
    with pytest.raises(UserError) as caught:
        load_recipe(file, ["sft.max_length=8"])
    assert caught.value.where == f"{file}:5"
    assert load_recipe(file, ["sft.max_steps=8"]).stages["sft"].max_steps == 8
