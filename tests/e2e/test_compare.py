"""`groundup compare`: numbers that training itself logged, worst pairs, answers side by side."""

import json

import pytest

from groundup.store.files import read_json


@pytest.fixture(scope="module")
def compared(chain, call_in):
    """sft, which is DPO's reference, and dpo, on what dpo held out."""
    said = call_in(
        chain.folder,
        *("compare", "runs/chain/sft", "runs/chain/dpo", "--json", "--worst", "2"),
        *("--max-new-tokens", "5", "--prompt", "Say red number 1."),
    )
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_rewards_are_those_that_training_logged(chain, compared):
    logged = read_json(chain.root / "dpo" / "result.json")["after"]
    rewards = compared["margins"]["dpo"]["rewards"]
    assert (compared["reference"], compared["pairs"], compared["beta"]) == ("sft", 3, 0.1)
    assert rewards["margin"] == pytest.approx(logged["eval_rewards/margins"], abs=1e-4)
    assert rewards["accuracy"] == pytest.approx(logged["eval_rewards/accuracies"])
    assert rewards["margin"] > 0.01
    assert "rewards" not in compared["margins"]["sft"], "a model is no reference for itself"


def test_margins_a_token_are_those_of_an_evaluation(chain, compared):
    models = {one["name"]: one["metrics"] for one in read_json(chain.root / "eval" / "result.json")["models"]}
    for name in ("sft", "dpo"):
        found = compared["margins"][name]["logps_per_token"]
        assert found["margin"] == pytest.approx(models[name]["eval_preference_margin"], abs=1e-4)
        assert found["accuracy"] == pytest.approx(models[name]["eval_preference_accuracy"])


def test_the_file_has_every_pair(chain, compared):
    whole = read_json(chain.folder / "runs" / "compare-sft-dpo.json")
    assert len(whole["each"]) == 3 and "each" not in compared
    for pair in whole["each"]:
        (chosen, rejected), (ref_chosen, ref_rejected) = (pair["logps"][name] for name in ("dpo", "sft"))
        by_hand = 0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        assert pair["margins"]["dpo"]["rewards"] == pytest.approx(by_hand)
    rewards = sorted(pair["margins"]["dpo"]["rewards"] for pair in whole["each"])
    assert [pair["margins"]["dpo"]["rewards"] for pair in whole["worst"]] == rewards[:2]
    assert whole["worst"][0]["chosen"][-1]["role"] == "assistant" and whole["worst_by"] == "rewards"


def test_answers_side_by_side(compared):
    own, *held_out = compared["answers"]
    assert (own["prompt"], own["reference"]) == ("Say red number 1.", None)
    assert len(held_out) == 3 and all(one["reference"] for one in held_out)
    assert all(set(one["answers"]) == {"sft", "dpo"} for one in compared["answers"])


def test_one_screen(chain, groundup):
    said = groundup("compare", "runs/chain/sft", "runs/chain/dpo", "--out", "x.json", cwd=chain.folder)
    assert said.code == 0, said.err
    for part in ("rewards: 0.1 x log-ratio to sft", "length corr.", "reward a token", "Worst pairs of dpo"):
        assert part in said.out
    screen = said.out[said.out.index("3 pairs") :]  # what stands before is progress
    assert len(screen.splitlines()) < 50 and (chain.folder / "x.json").is_file()


def test_one_model_with_questions_alone(model, groundup, tmp_path):
    line = ["compare", model, "--prompt", "Say red.", "--max-new-tokens", "4", "--json"]
    said = groundup(*line, "--out", tmp_path / "deep" / "one.json")
    assert said.code == 0, said.err
    assert [one["prompt"] for one in json.loads(said.out)["answers"]] == ["Say red."]
    assert "pairs" not in json.loads(said.out) and (tmp_path / "deep" / "one.json").is_file()


def test_conversations_are_asked(model, chat_file, groundup):
    said = groundup(
        "compare", model, "--data", chat_file, "--sample-count", "2", "--max-new-tokens", "4", "--json"
    )
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["answers"]) == 2


def test_a_common_reference(chain, model, pairs_file, groundup):
    line = ["compare", "runs/chain/sft", "runs/chain/dpo", "--reference", model, "--data", pairs_file]
    said = groundup(*line, "--subset", "4", "--sample-count", "0", "--json", "--beta", "1", cwd=chain.folder)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["pairs"] == 4 and found["reference"] == "tiny" and found["answers"] == []
    assert all("rewards" in found["margins"][name] for name in ("sft", "dpo"))


def test_what_cannot_be_compared(chain, model, base_model, pairs_file, chat_file, groundup):
    groundup("compare", model).refused("nothing to compare on", "--data F")
    groundup("compare", model, "nowhere/at/all").refused("nowhere/at/all")
    groundup("compare", model, model, model).refused("one model or two")
    groundup("compare", model, "--data", pairs_file, "--max-length", "3").refused(
        "can be used", "--max-length"
    )
    groundup("compare", base_model, "--data", pairs_file).refused("no chat template")
