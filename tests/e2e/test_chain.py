"""A recipe of all post-training stages: what it leaves, what a second run reuses, what others can open."""

import hashlib
import json
import re
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

STAGES = ["sft", "dpo", "merge", "eval"]
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
DONE = "already done"


def tags(stage):
    events = EventAccumulator(str(stage.tensorboard))
    events.Reload()
    return set(events.Tags()["scalars"])


def states(said):
    """Stage name to whether it was reused."""
    parts = re.split(r"\n\[\d+/\d+\] ", said.out)[1:]
    return {part.split()[0]: DONE in part for part in parts}


def test_the_folder_of_the_run(chain):
    for name in ("report.html", "report.md", "recipe.yaml", "environment.json", "run.log"):
        assert (chain.root / name).stat().st_size > 0, name
    run = Run.open(chain.root, create=False)
    assert [stage.name for stage in run.stages()] == STAGES
    for stage in run.stages():
        assert stage.manifest.exists() and read_json(stage.result)["kind"] == stage.name
        assert not list(stage.root.rglob(".tmp-*"))
    for name in ("sft", "dpo"):
        stage = run.stage(name)
        assert {file.name for file in stage.final.iterdir()} == TOKENIZER | {
            "adapter_model.safetensors",
            "adapter_config.json",
        }
        assert len(read_jsonl(stage.data / "heldout.jsonl")) == 3
        assert all(sample["before"] != sample["after"] for sample in read_json(stage.result)["samples"])
    assert [path.name for path in run.stage("sft").checkpoints()] == [
        "checkpoint-000002",
        "checkpoint-000004",
    ]
    merged = {file.name for file in run.stage("merge").final.iterdir()}
    assert merged == TOKENIZER | {"model.safetensors", "config.json", "generation_config.json"}
    assert read_json(run.stage("merge").result)["max_logit_difference"] < 1e-4


def test_what_the_stages_measured(chain):
    run = Run.open(chain.root, create=False)
    for name, count, names in (
        ("sft", 4, {"loss", "grad_norm", "learning_rate", "eval_loss"}),
        (
            "dpo",
            3,
            {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"},
        ),
    ):
        stage = run.stage(name)
        steps = [line["step"] for line in read_jsonl(stage.metrics) if "loss" in line]
        assert steps == list(range(1, count + 1))
        assert names <= tags(stage)
        result = read_json(stage.result)
        assert result["steps"] == count and result["tokens"] > 0
        assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
        assert result["plan"]["dtype"] == "float32" and result["plan"] == read_json(stage.plan)
        rows = result["rows"]
        assert rows["in"] == rows["kept"] == (24 if name == "sft" else 16)
    dpo = read_json(run.stage("dpo").result)
    assert dpo["before"]["eval_rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert dpo["after"]["eval_rewards/margins"] > 0.01


def test_the_evaluation_compares_every_model(chain):
    result = read_json(chain.root / "eval" / "result.json")
    assert [model["name"] for model in result["models"]] == ["base", "sft", "dpo", "merge"]
    metrics = {model["name"]: model["metrics"] for model in result["models"]}
    sft = read_json(chain.root / "sft" / "result.json")
    assert metrics["base"]["eval_loss"] == pytest.approx(sft["before"]["eval_loss"], abs=1e-4)
    assert metrics["sft"]["eval_loss"] == pytest.approx(sft["after"]["eval_loss"], abs=1e-4)
    assert metrics["merge"] == pytest.approx(metrics["dpo"], abs=1e-3)
    assert metrics["dpo"]["eval_preference_margin"] > metrics["sft"]["eval_preference_margin"]
    assert len(result["generations"]) == 2
    assert all(set(one["answers"]) == set(metrics) for one in result["generations"])


def test_the_report_is_one_page_of_all_stages(chain):
    page, text = ((chain.root / name).read_text() for name in ("report.html", "report.md"))
    assert not re.findall(r'(?:src|href)="https?://', page) and "<script src" not in page
    for name in STAGES:
        assert name in page and name in text
    assert "Now " in page  # a held-out prompt
    for link in re.findall(r"\]\((report_files/[^)]+)\)", text):
        assert (chain.root / link).exists()


def test_the_console_says_where_everything_is(chain):
    for part in (
        "report.html",
        "groundup chat runs/chain",
        "tensorboard --logdir runs/chain",
        "run.log",
        "[4/4] eval",
    ):
        assert part in chain.said.out
    assert chain.said.err == ""
    assert "[4/4] eval" in (chain.root / "run.log").read_text()


def test_the_written_recipe_is_the_whole_recipe(chain):
    written = Run.open(chain.root, create=False).read_recipe()
    assert written["chat"]["system_prompt"] == "Answer in a word."
    assert written["stages"]["sft"]["learning_rate"] == 0.01 and written["stages"]["dpo"]["beta"] == 0.1
    kept = read_json(chain.root / "environment.json")
    assert kept["packages"]["torch"] == torch.__version__


def test_a_second_run_reuses_everything(copy_of_chain, groundup, snapshot):
    before = {name: snapshot(copy_of_chain.root / name) for name in STAGES}
    said = groundup("run", "chain.yaml")
    assert said.code == 0, said.err
    assert states(said) == dict.fromkeys(STAGES, True)
    for name in STAGES:
        after = snapshot(copy_of_chain.root / name)
        assert {file: mark for file, mark in after.items() if "stage.lock" not in file} == {
            file: mark for file, mark in before[name].items() if "stage.lock" not in file
        }


@pytest.mark.parametrize(
    ("setting", "reused"),
    [
        ("eval.sample_count=1", {"sft", "dpo", "merge"}),
        ("dpo.beta=0.2", {"sft"}),
        ("sft.logging_steps=3", set(STAGES)),
    ],
)
def test_one_changed_setting_runs_only_what_depends_on_it(copy_of_chain, groundup, setting, reused):
    said = groundup("run", "chain.yaml", "--set", setting)
    assert said.code == 0, said.err
    assert {name for name, done in states(said).items() if done} == reused


def test_the_same_files_by_another_path_are_the_same_run(copy_of_chain, chat_file, groundup, tmp_path):
    """Called from another folder, and the data named by a path of its own."""
    copied = shutil.copy(chat_file, tmp_path / "elsewhere.jsonl")
    above = copy_of_chain.folder.parent
    said = groundup(
        "run", copy_of_chain.recipe, "--out", copy_of_chain.root, "--set", f"sft.data={copied}", cwd=above
    )
    assert said.code == 0, said.err
    assert states(said) == dict.fromkeys(STAGES, True)


def test_the_resolved_recipe_is_the_same_run(copy_of_chain, groundup):
    """Defaults that are written out ask for nothing else: DPO goes on with the adapter of SFT."""
    said = groundup("run", "runs/chain/recipe.yaml")
    assert said.code == 0, said.err
    assert states(said) == dict.fromkeys(STAGES, True)
    said = groundup("run", "runs/chain/recipe.yaml", "--set", "dpo.beta=0.2", "--until", "dpo")
    assert said.code == 0 and "the adapter that is there: r 4" in said.out, said.err


def test_a_changed_stage_that_is_left_out_is_told(copy_of_chain, groundup):
    said = groundup("run", "chain.yaml", "--set", "sft.max_steps=1", "--only", "dpo")
    assert said.code == 0 and "stage sft is used as it is" in said.err
    assert groundup("run", "chain.yaml", "--only", "merge").err == ""


def test_a_changed_row_runs_what_reads_it(copy_of_chain, groundup, write, conversation):
    rows = write("other.jsonl", [conversation(i) for i in range(23)])
    said = groundup("run", "chain.yaml", "--set", f"sft.data={rows}", "--until", "sft")
    assert said.code == 0 and states(said) == {"sft": False}


def test_a_damaged_result_is_made_again(copy_of_chain, groundup):
    adapter = copy_of_chain.root / "dpo" / "final" / "adapter_model.safetensors"
    data = bytearray(adapter.read_bytes())
    whole = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    adapter.write_bytes(data)
    said = groundup("run", "chain.yaml", "--until", "dpo")
    assert said.code == 0 and states(said) == {"sft": True, "dpo": False}
    assert hashlib.sha256(adapter.read_bytes()).hexdigest() == whole


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--only", "merge", "--only", "sft"], ["sft", "merge"]),
        (["--from", "merge"], ["merge", "eval"]),
        (["--until", "dpo"], ["sft", "dpo"]),
        (["--from", "dpo", "--until", "merge"], ["dpo", "merge"]),
    ],
)
def test_only_from_until(copy_of_chain, groundup, options, chosen):
    said = groundup("run", "chain.yaml", *options)
    assert said.code == 0, said.err
    assert list(states(said)) == chosen


def test_a_stage_without_what_it_reads(chain_text, write, groundup, tmp_path):
    write("chain.yaml", chain_text)
    groundup("run", "chain.yaml", "--only", "dpo").refused("needs stage sft", "--only")
    assert not (tmp_path / "runs" / "chain" / "dpo").exists()


def logits(model, token):
    with torch.no_grad():
        return model(input_ids=token).logits


def test_others_open_what_it_saved(chain, model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chain.root / "merge" / "final")
    said = [{"role": "user", "content": "Say red number 3."}]
    token = torch.tensor([tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)])
    merged = AutoModelForCausalLM.from_pretrained(chain.root / "merge" / "final", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    plain = logits(base, token)
    adapted = logits(PeftModel.from_pretrained(base, chain.root / "dpo" / "final"), token)
    assert (adapted - plain).abs().max() > 0.05
    torch.testing.assert_close(logits(merged, token), adapted, atol=1e-4, rtol=0)
    assert merged.generation_config.eos_token_id is not None
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(model).chat_template
    named = json.loads((chain.root / "dpo" / "final" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(model.resolve())


def test_ours_and_theirs_give_the_same_logits(chain):
    from transformers import AutoModelForCausalLM

    from groundup.infer import load_for_inference

    token = torch.arange(10, 40)
    ours = load_for_inference(str(chain.root / "dpo"), dtype="float32").model
    theirs = AutoModelForCausalLM.from_pretrained(chain.root / "merge" / "final", dtype=torch.float32)
    torch.testing.assert_close(ours.logits(token).float(), logits(theirs, token[None])[0], atol=1e-4, rtol=0)
