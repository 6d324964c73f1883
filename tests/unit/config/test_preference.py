"""Settings of the preference stages: what does nothing is an error."""

import pytest

from groundup.config import build_recipe, recipe_to_yaml
from groundup.config.load import load_recipe
from groundup.errors import UserError
from groundup.objective import PREFERENCE_LOSSES


def recipe(**dpo):
    return build_recipe(
        {"name": "r", "stages": {"dpo": {"kind": "dpo", "from": "m", "data": "p.jsonl", **dpo}}}
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing does nothing with loss: hinge"),
        ({"loss": "kto", "label_smoothing": 0.1}, "label_smoothing does nothing with loss: kto"),
        (
            {"simpo_gamma": 0.5},
            "simpo_gamma does nothing with loss: sigmoid; it should be left out, or loss be one of simpo",
        ),
        ({"loss": "orpo", "desirable_weight": 2.0}, "desirable_weight does nothing with loss: orpo"),
        ({"undesirable_weight": 2.0}, "undesirable_weight does nothing with loss: sigmoid"),
        ({"loss": "simpo", "reference": "base"}, "reference does nothing with loss: simpo"),
        ({"loss": "orpo", "reference": "base"}, "reference does nothing with loss: orpo"),
        ({"loss": "robust"}, "loss: robust needs label_smoothing"),
        ({"loss": "kto", "batch_size": 1}, "batch_size of at least 2"),
        ({"loss": "sigmiod"}, "Did you mean `sigmoid`?"),
        ({"loss": "robust", "label_smoothing": 0.5}, "below 0.5"),
    ],
)
def test_what_does_nothing_is_an_error(settings, said):
    with pytest.raises(UserError) as caught:
        recipe(**settings)
    assert said in caught.value.render()


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_every_loss_has_its_options(loss, tmp_path):
    """And the resolved recipe, defaults written out, is the same recipe."""
    settings = {
        "robust": {"label_smoothing": 0.1},
        "simpo": {"simpo_gamma": 0.0},
        "kto": {"desirable_weight": 2.0},
    }
    made = recipe(loss=loss, beta=0.3, **settings.get(loss, {}))
    objective = PREFERENCE_LOSSES[loss](**made.stages["dpo"].options)
    assert objective.beta == 0.3
    (tmp_path / "r.yaml").write_text(recipe_to_yaml(made))
    assert load_recipe(tmp_path / "r.yaml") == made


def stages(**more):
    return {
        "sft": {"from": "m", "data": "c.jsonl"},
        "reward": {"from": "sft", "data": "p.jsonl"},
        **more,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"dpo": {"from": "reward", "data": "p.jsonl"}},
        {"dpo": {"from": "sft", "data": "p.jsonl", "reference": "reward"}},
        {"eval": {"from": "reward"}},
        {"merge": {"from": "reward"}, "eval": {"from": "merge"}},
    ],
)
def test_a_reward_model_is_none_that_answers(wrong):
    with pytest.raises(UserError) as caught:
        build_recipe({"name": "r", "stages": stages(**wrong)})
    assert "makes a reward model, which scores texts" in caught.value.render()


def test_a_reward_model_can_be_merged_and_a_reference_named():
    dpo = {"from": "sft", "data": "p.jsonl", "reference": "first"}
    first = {"kind": "sft", "from": "m", "data": "c.jsonl"}
    made = build_recipe({"name": "r", "stages": stages(first=first, merge={"from": "reward"}, dpo=dpo)})
    assert made.stages["dpo"].reference == "first"
    with pytest.raises(UserError, match="there is no stage or folder `frist`"):
        build_recipe({"name": "r", "stages": stages(first=first, dpo={**dpo, "reference": "frist"})})
