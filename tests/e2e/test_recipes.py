"""The shipped recipes from a hub on loopback, with models and data as in `hub_material.py`: planned, rehearsed, run,
reported and talked to."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from groundup.config import list_recipes
from groundup.store.files import read_json, read_jsonl

CURVES = {"loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"}
DPO = ["--set=dpo.dtype=float32", "--set=dpo.sample_tokens=8", "--set=eval.sample_tokens=8"]
FAST = ["--set=sft.dtype=float32", "--set=sft.sample_tokens=8", *DPO]
PPO = ["--set=ppo.dtype=float32", "--set=ppo.sample_tokens=8", "--set=ppo.max_completion_length=8"]
BRANCHES = [*FAST, *PPO]
TINY_SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_BASE = [
    *(f"--set=pretrain.architecture.{key}={value}" for key, value in TINY_SHAPE.items()),
    "--set=pretrain.architecture.num_key_value_heads=4",
    "--set=pretrain.dtype=float32",
    "--set=tokenizer.vocab_size=600",
]
OPTIONS = {
    "pretrain-wikitext-0.5b": TINY_BASE,
    "tinyllama-guanaco-cpu": BRANCHES,
    "qwen2-0.5b-ultrafeedback": DPO,
    "qwen3-4b-4xh100": FAST,
}


def scalars(stage: Path) -> dict[str, list[int]]:
    """Steps by the name of a curve, as TensorBoard reads them."""
    events = EventAccumulator(str(stage / "tensorboard"))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("form", [[], ["--form", "full"]], ids=["as written", "full"])
def test_planned_and_rehearsed(field, tmp_path, name, form):
    assert field("plan", name, *form).out.startswith(f"{'-'.join([name, *form[1:]])} in runs")
    said = field("run", name, *form, *OPTIONS[name], "--rehearse")
    assert "The rehearsal went through" in said.out
    assert not (tmp_path / "runs").exists()


def test_every_recipe_of_a_hub_is_here():
    assert {recipe.name for recipe in list_recipes()} == {*OPTIONS, "demo", "sft-dpo"}


@pytest.mark.slow
def test_pretraining_on_wikitext(field, loopback_hub, tmp_path):
    field("run", "pretrain-wikitext-0.5b", *TINY_BASE)
    run = tmp_path / "runs" / "pretrain-wikitext-0.5b"
    rows = read_json(run / "clean" / "result.json")["rows"]
    assert rows["in"] == 1000 and rows["quarantined"] == {"empty text": 334}
    assert rows["filtered"] == {"shorter than 50 characters": 333}
    assert not [path for path in loopback_hub.fetched if "103" in path], "one configuration is fetched"
    result = read_json(run / "pretrain" / "result.json")
    assert result["steps"] == 10 and result["after"]["eval_loss"] < result["before"]["eval_loss"]
    assert len(result["samples"]) == 2
    said = field("chat", run, "--max-new-tokens", "8", typed="The capital\nexit\n")
    assert said.out.startswith("The capital") and "continues the text" in said.err


def test_tinyllama_on_guanaco_imdb_and_hh(field, loopback_hub, material, tmp_path):
    field("run", "tinyllama-guanaco-cpu", *BRANCHES)
    run = tmp_path / "runs" / "tinyllama-guanaco-cpu"
    sft, dpo, evaluation = (read_json(run / stage / "result.json") for stage in ("sft", "dpo", "eval"))
    assert (sft["steps"], sft["rows"]["in"], dpo["steps"]) == (5, 16, 2)
    assert dpo["rows"]["in"] == 20, "10 to train on, 10 held out"
    questions = [sample["prompt"] for sample in sft["samples"]]
    assert len(questions) == 4 == len(dpo["samples"])
    assert questions == [sample["prompt"] for sample in dpo["samples"]]
    assert questions == [one["prompt"] for one in evaluation["generations"]][:4]
    assert [model["name"] for model in evaluation["models"]] == ["base", "sft", "dpo"]
    adapter = json.loads((run / "dpo" / "final" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    assert sorted(adapter["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    report = (run / "report.md").read_text()
    assert report.count(questions[0]) >= 3, "after each stage, and side by side"
    said = field("chat", run, "--max-new-tokens", "8", typed="What of the sea?\nexit\n")
    assert said.out.strip() and "tinyllama-guanaco-cpu/dpo" in said.err
    ppo = read_json(run / "ppo" / "result.json")
    assert (ppo["steps"], ppo["rows"]["in"]) == (4, 20)
    assert questions == [sample["prompt"] for sample in ppo["samples"]][:4]
    assert {"eval_reward", "eval_rewards/sentiment/mean"} <= ppo["after"].keys()
    begun = {row["text"] for row in read_jsonl(run / "ppo" / "data" / "heldout.jsonl")}
    reviews = parquet.read_table(material[1]["stanfordnlp/imdb"] / "plain_text").column("text").to_pylist()
    assert all(any(review.startswith(text) for review in reviews) for text in begun)
    reviewed = [path for path in loopback_hub.fetched if path.startswith("plain_text/")]
    assert reviewed and all(path.startswith("plain_text/train-") for path in reviewed)
    again = field("run", "tinyllama-guanaco-cpu", *BRANCHES)
    assert again.out.count("already done") == 4


@pytest.mark.slow
def test_qwen2_on_ultrafeedback(field, tmp_path):
    field("run", "qwen2-0.5b-ultrafeedback", *OPTIONS["qwen2-0.5b-ultrafeedback"])
    run = tmp_path / "runs" / "qwen2-0.5b-ultrafeedback"
    result = read_json(run / "dpo" / "result.json")
    assert result["steps"] == 60 and (run / "dpo" / "final" / "model.safetensors").is_file()
    drawn = scalars(run / "dpo")
    assert drawn.keys() >= CURVES
    assert all(drawn[curve] == [10, 20, 30, 40, 50, 60] for curve in CURVES)
    lines = [line for line in read_jsonl(run / "dpo" / "metrics.jsonl") if "loss" in line]
    assert all(line.keys() >= CURVES for line in lines)
    said = field(
        "compare", "Qwen/Qwen2-0.5B-Instruct", run, "--json", "--max-new-tokens", "8", "--sample-count", "1"
    )
    rewards = json.loads(said.out)["margins"]["qwen2-0.5b-ultrafeedback"]["rewards"]
    assert rewards["margin"] == pytest.approx(result["after"]["eval_rewards/margins"], abs=1e-4)
    said = field("chat", run, "--max-new-tokens", "8", typed="What of the sea?\nexit\n")
    assert said.out.strip() and "qwen2" in said.err


@pytest.mark.slow
def test_qwen3_on_alpaca_and_ultrafeedback(field, tmp_path):
    field("run", "qwen3-4b-4xh100", *FAST)
    run = tmp_path / "runs" / "qwen3-4b-4xh100"
    for stage in ("sft", "dpo"):
        assert (run / stage / "final" / "adapter_model.safetensors").is_file()
        assert read_json(run / stage / "result.json")["steps"] == 4
    for stage in ("sft-merged", "merged"):
        assert read_json(run / stage / "result.json")["max_logit_difference"] < 1e-3
        kind = type(AutoModelForCausalLM.from_pretrained(run / stage / "final")).__name__
        assert kind == "Qwen3ForCausalLM"
    adapter = json.loads((run / "sft" / "final" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (64, 128)
    heldout = read_jsonl(run / "dpo" / "data" / "heldout.jsonl")
    assert heldout[0]["prompt"][0]["content"].startswith("Question 100"), "the split test_prefs"
    said = field("chat", run, "--max-new-tokens", "8", typed="What of the sea?\nexit\n")
    assert said.out.strip() and "qwen3" in said.err


def test_what_is_not_there_is_told_before_anything_trains(field, tmp_path):
    line = ["run", "tinyllama-guanaco-cpu"]
    said = field(*line, "--set", "dpo.data.split=train_prefs", refused=True)
    said.refused("train_prefs", "test")
    said = field(*line, "--set", "dpo.data.path=trl-lib/nothing", refused=True)
    said.refused("trl-lib/nothing")
    said = field(*line, "--set", "sft.from=TinyLlama/Nothing", refused=True)
    said.refused("TinyLlama/Nothing")
    said = field("run", "pretrain-wikitext-0.5b", "--set", "clean.data.config=wikitext-3", refused=True)
    said.refused("wikitext-3", "wikitext-2-raw-v1")
    assert not (tmp_path / "runs").exists()


def test_a_reward_that_cannot_judge_is_told_before_anything_trains(field, tmp_path):
    line = ["run", "tinyllama-guanaco-cpu", "--set"]
    for model, told in (
        ("lvwerra/nothing", "lvwerra/nothing"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "holds no classifier"),
        ("dpo", "makes a model"),
    ):
        reward = f"ppo.rewards=[{{function: sentiment, model: {model}}}]"
        field(*line, reward, refused=True).refused(told)
    reward = "ppo.rewards=[{function: sentiment, model: lvwerra/distilbert-imdb, label: GOOD}]"
    field(*line, reward, refused=True).refused("NEGATIVE, POSITIVE")
    assert not (tmp_path / "runs").exists()
