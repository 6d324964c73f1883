"""Names of other tools: every one is answered with ours, and ours exist."""

import pytest

from groundup.config import build_recipe, foreign, foreign_alignment, load_recipe, words
from groundup.config.schema import STAGE_KINDS
from groundup.errors import UserError

ONE = {"name": "x", "stages": {"sft": {"from": "m", "data": "d.jsonl"}}}
PLACES = [(), *(("stages", kind) for kind in STAGE_KINDS)]
KINDS = {kind: kind for kind in STAGE_KINDS}


def exists(name):
    """Whether some stage, or the recipe, has a setting of this dotted name."""
    return any(words.annotation_at((*place, *name.split(".")), KINDS) is not None for place in PLACES)


@pytest.mark.parametrize(("theirs", "ours"), [(key, name) for key, (name, _) in foreign.NAMES.items()])
def test_what_it_is_called_here_exists(theirs, ours):
    assert exists(ours)
    assert not exists(theirs), "our own name needs no translation"


@pytest.mark.parametrize("theirs", foreign.LEAVE_OUT)
def test_what_is_left_out_is_no_setting(theirs):
    assert theirs not in foreign.NAMES
    assert not exists(theirs)


@pytest.mark.parametrize(("place", "value"), foreign.VALUES)
def test_a_foreign_value_belongs_to_a_setting_that_refuses_it(place, value):
    assert exists(place) or exists(f"lora.{place}")


@pytest.mark.parametrize(("place", "theirs"), foreign_alignment.IN_KIND)
def test_a_name_of_another_kind_is_answered_with_this_kinds(place, theirs):
    ours, _ = foreign_alignment.IN_KIND[place, theirs]
    known = words.fields(STAGE_KINDS[place])
    assert theirs not in known and exists(theirs), "else it belongs into NAMES"
    assert not ours or ours in known
    assert (f"Here it is `{ours}`" if ours else "Leave it out") in failure(place, **{theirs: 1})


def failure(kind="sft", **settings):
    stage = ONE["stages"]["sft"] | settings | ({"rewards": ["length"]} if kind in ("grpo", "ppo") else {})
    with pytest.raises(UserError) as caught:
        build_recipe({"name": "x", "stages": {kind: stage}})
    return caught.value.render()


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("ppo", {"ppo_epochs": 4}, "Here it is `num_ppo_epochs`."),
        ("ppo", {"init_kl_coef": 0.2}, "Here it is `kl_coef`."),
        ("ppo", {"adap_kl_ctrl": True}, "Here it is `kl_target`:"),
        ("ppo", {"mini_batch_size": 1}, "Here it is `num_mini_batches`:"),
        ("ppo", {"response_length": 53}, "Here it is `max_completion_length`."),
        ("ppo", {"reward_model": "m"}, "Here it is `rewards`: rewards: [{function: model, model: M}]"),
        ("ppo", {"ppo_score_norm": True}, "Leave it out: rewards are not rescaled"),
        ("grpo", {"generation_batch_size": 8}, "Here it is `batch_size`:"),
        ("grpo", {"use_vllm": True}, "Leave it out: answers come from the generator here"),
        ("grpo", {"reward_weights": [1.0]}, "a weight beside each"),
        ("grpo", {"importance_sampling_level": "sequence"}, "with loss_type: rloo the whole answer's"),
        ("grpo", {"loss_type": "cispo"}, "It is not here. Nearest is dapo"),
        ("grpo", {"scale_rewards": True}, "Write group."),
        ("grpo", {"scale_rewards": False}, "Write none."),
        ("dpo", {"loss_type": "ipo"}, "Here it is `loss`."),
        ("dpo", {"loss": "apo_zero"}, "It is not here. Nearest is kto"),
        ("dpo", {"loss": ["sigmoid", "sft"]}, "losses are not mixed"),
        ("dpo", {"f_divergence_type": "js_divergence"}, "Leave it out: the reference is kept to by"),
        ("dpo", {"ref_model": "m"}, "Here it is `reference`:"),
    ],
)
def test_names_of_alignment_are_answered_in_their_stages(kind, settings, said):
    assert said in failure(kind, **settings)


@pytest.mark.parametrize(("place", "value"), foreign_alignment.VALUES)
def test_a_foreign_choice_is_refused_with_what_to_write(place, value):
    kind = {"loss": "dpo", "kl_estimator": "ppo"}.get(place, "grpo")
    assert foreign_alignment.VALUES[place, value] in failure(kind, **{place: value})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dataset_subset_size": 10}, "Here it is `data.subset`."),
        ({"dataset_subset_size_cpu": 10}, "Here it is `data.subset`."),
        ({"model_name_or_path": "m"}, "Here it is `from`:"),
        ({"model_config_path": "c"}, "Here it is `architecture`:"),
        ({"dataset_dir": "d"}, "Here it is `data`:"),
        ({"lora_target_modules": ["q_proj"]}, "Here it is `lora.target_modules`:"),
        ({"lora": {"lora_dropout": 0.05}}, "Leave it out: there is no dropout"),
        ({"per_device_train_batch_size": 1}, "Here it is `batch_size`:"),
        ({"gradient_accumulation_steps": 4}, "per-device size x accumulation x devices"),
        ({"num_epochs": 1}, "Here it is `num_train_epochs`."),
        ({"ppo_steps": 4}, "Here it is `max_steps`."),
        ({"attnImplementation": "sdpa"}, "Leave it out: before a stage trains"),
        ({"optim": "paged_adamw_8bit"}, "Write adamw_torch, or leave it out"),
        ({"dtype": "fp16"}, "Write bfloat16"),
        ({"lora": True}, "an adapter is the default"),
        ({"max_steps": -1}, "Write 0"),
    ],
)
def test_a_foreign_setting_is_answered_with_ours(settings, said):
    assert said in failure(**settings)


def test_on_the_command_line_too():
    for option in ("dataset_subset_size=3", "sft.dataset_subset_size=3"):
        with pytest.raises(UserError) as caught:
            build_recipe(ONE, [option])
        assert "Here it is `data.subset`." in caught.value.render()


TRL = "model_name_or_path: m\ndataset_name: d\nlearning_rate: 2e-4\nbf16: true\noutput_dir: out\n"
NESTED = "model:\n  base_model: m\n  lora_r: 64\ntraining:\n  optim: adamw_torch\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (TRL, ["model_name_or_path", "dataset_name", "bf16", "output_dir"]),
        (NESTED, ["base_model", "lora_r"]),
    ],
)
def test_another_tools_file_is_told_from_a_recipe(tmp_path, text, names):
    file = tmp_path / "sft.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    said = caught.value.render()
    assert "another tool's configuration" in said and str(file) in said and "groundup init" in said
    for name in names:
        assert foreign.advice(name) in said
    assert "learning_rate" not in said


def test_a_recipe_with_one_foreign_word_is_still_a_recipe(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("output_dir: x\n")
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    assert "2 things in the recipe are wrong" in caught.value.render()
