"""The verbs without a recipe, and what can be asked of a finished run."""

import os
import tempfile
from pathlib import Path

import pytest

from groundup.infer import load_for_inference
from groundup.store import Run
from groundup.store.files import read_json, read_jsonl, write_json

FAST = ["--set=max_steps=1", "--set=dtype=float32", "--set=sample_count=1", "--set=sample_tokens=3"]
BATCH = [*FAST, "--set=batch_size=4", "--set=holdout=0.2"]


def test_sft_then_dpo_then_merge_then_eval(model, chat_file, pairs_file, groundup, tmp_path):
    """Each verb goes on from the run before, named by its folder."""
    said = groundup("sft", "--model", model, "--data", chat_file, *BATCH)
    assert said.code == 0, said.err
    assert "runs/sft-chat/report.html" in said.out
    said = groundup(
        "dpo", "--model", "runs/sft-chat", "--data", pairs_file, *BATCH, "--set", "max_minutes=0.05"
    )
    assert said.code == 0, said.err
    named = read_json(tmp_path / "runs" / "dpo-pairs" / "dpo" / "final" / "adapter_config.json")
    assert named["base_model_name_or_path"] == str(model.resolve())
    assert groundup("merge", "runs/dpo-pairs", "--out", "merged").code == 0
    assert read_json(tmp_path / "merged" / "merge" / "result.json")["max_logit_difference"] < 1e-4

    said = groundup(
        "eval", "merged/merge", "--data", chat_file, "--set", "sample_count=1", "--set", "sample_tokens=3"
    )
    assert said.code == 0, said.err
    (result,) = [read_json(path) for path in (tmp_path / "runs").glob("eval-*/eval/result.json")]
    assert [one["name"] for one in result["models"]] == ["base", "merge"]
    assert result["rows"]["in"] == 24


def test_eval_of_a_run_uses_what_it_held_out(chain, groundup, tmp_path):
    """The same rows, models, chat settings and dtype, hence the same numbers."""
    line = ["eval", chain.root, "--set", "sample_count=2", "--set", "sample_tokens=5"]
    said = groundup(*line)
    assert said.code == 0, said.err
    ours = read_json(tmp_path / "runs" / "eval-chain" / "eval" / "result.json")
    theirs = read_json(chain.root / "eval" / "result.json")
    assert ours["models"] == theirs["models"]
    assert ours["generations"] == theirs["generations"]
    assert "already done" in groundup(*line).out
    said = groundup(*line, "--set", "chat.system_prompt=Sing.")
    changed = read_json(tmp_path / "runs" / "eval-chain" / "eval" / "result.json")
    assert "already done" not in said.out and changed["models"][0]["metrics"] != ours["models"][0]["metrics"]


def test_eval_of_a_stage_stops_there(chain, groundup, tmp_path):
    said = groundup("eval", chain.root / "sft", "--set", "sample_count=0")
    assert said.code == 0, said.err
    result = read_json(tmp_path / "runs" / "eval-sft" / "eval" / "result.json")
    assert [one["name"] for one in result["models"]] == ["base", "sft"]
    assert set(result["models"][0]["metrics"]) == {"eval_loss"}


def test_eval_of_a_plain_model_needs_rows(model, pairs_file, groundup, tmp_path):
    groundup("eval", model).refused("no rows to evaluate on", "--data")
    said = groundup("eval", model, "--data", pairs_file, "--set", "sample_count=0")
    assert said.code == 0, said.err
    result = read_json(tmp_path / "runs" / "eval-tiny" / "eval" / "result.json")
    assert 0 <= result["models"][0]["metrics"]["eval_preference_accuracy"] <= 1


def test_report_again(copy_of_chain, groundup):
    page = copy_of_chain.root / "report.html"
    before = page.read_text()
    page.unlink()
    said = groundup("report", "runs/chain")
    assert said.code == 0 and "report.html" in said.out
    assert page.read_text() == before
    groundup("report", copy_of_chain.folder / "runs" / "chian").refused("not a run", "chain")


def test_a_run_with_a_broken_recipe_file(copy_of_chain, groundup):
    (copy_of_chain.root / "recipe.yaml").write_text("stages: [\n")
    for line in (["report"], ["chat"], ["eval"]):
        groundup(*line, copy_of_chain.root).refused("recipe.yaml")


def test_plan_before_and_after(copy_of_chain, groundup, snapshot):
    fresh = groundup("plan", "chain.yaml", "--out", "other")
    assert fresh.code == 0 and fresh.out.count("to do") == 4
    assert not (copy_of_chain.folder / "other").exists()
    before = snapshot(copy_of_chain.root)
    done = groundup("plan", "chain.yaml")
    assert done.out.count(": done") == 4 and "float32: the recipe says so" in done.out
    changed = groundup("plan", "chain.yaml", "--set", "dpo.beta=0.3")
    assert changed.out.count(": done") == 1 and changed.out.count("have changed") == 1
    assert changed.out.count("to do after") == 2
    assert snapshot(copy_of_chain.root) == before


def test_doctor_against_a_run(copy_of_chain, groundup, monkeypatch):
    same = groundup("doctor", "--against", copy_of_chain.root)
    assert same.code == 0
    kept = read_json(copy_of_chain.root / "environment.json")
    kept["packages"]["torch"] = "1.0"
    write_json(copy_of_chain.root / "environment.json", kept)
    other = groundup("doctor", "--against", copy_of_chain.root)
    assert other.code == 0 and "torch" in other.out.partition("Compared with")[2]
    groundup("doctor", "--against", "nowhere").refused("not a run")


def test_chat_through_a_pipe(chain, in_shell):
    said = in_shell(
        "chat",
        chain.root,
        "--max-new-tokens",
        "4",
        "--temperature",
        "0",
        typed="Say red.\n\nSay blue.\n/exit\nmore\n",
    )
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) >= 2
    assert "chain/merge" in said.err and "/model sft" in said.err and "Goodbye" in said.err
    assert "Goodbye" not in said.out and "Traceback" not in said.err


def test_chat_speaks_as_the_run_was_trained(chain):
    loaded = load_for_inference(str(chain.root))
    assert loaded.chat.system_prompt == "Answer in a word."
    assert str(loaded.model.compute_dtype) == "torch.float32"


def test_all_weights(model, chat_file, write, groundup, tmp_path):
    """lora: false makes a whole model; going on from an adapter folds it in first; there is nothing to merge."""
    said = groundup(
        "sft", "--model", model, "--data", chat_file, *BATCH, "--set", "lora=false", "--out", "full"
    )
    assert said.code == 0, said.err
    files = {path.name for path in (tmp_path / "full" / "sft" / "final").iterdir()}
    assert "model.safetensors" in files and "adapter_config.json" not in files
    groundup("merge", "full").refused("nothing to merge")
    text = f"stages:\n  sft: {{from: {model}, data: {chat_file}, lora: false}}\n  merge: {{from: sft}}\n"
    groundup("run", write("whole.yaml", text)).refused("nothing to merge", "lora: false")
    assert not (tmp_path / "runs" / "whole").exists()
    assert groundup("sft", "--model", model, "--data", chat_file, *BATCH, "--out", "one").code == 0
    said = groundup(
        "sft", "--model", "one", "--data", chat_file, *BATCH, "--set", "lora=false", "--out", "two"
    )
    assert said.code == 0, said.err
    before = [read_json(tmp_path / run / "sft" / "result.json") for run in ("one", "two")]
    assert before[1]["before"]["eval_loss"] == pytest.approx(before[0]["after"]["eval_loss"], abs=1e-4)


def test_an_adapter_of_another_shape(chain, pairs_file, groundup):
    """Going on with an adapter keeps its shape; asking for another one is refused."""
    line = ["dpo", "--model", chain.root / "sft", "--data", pairs_file, *BATCH]
    groundup(*line, "--set", "lora.r=2").refused("another shape", "leave lora out")
    fewer = ["--set=lora.r=4", "--set=lora.lora_alpha=8", "--set=lora.target_modules=[q_proj]"]
    groundup(*line, *fewer).refused("another shape", "q_proj")
    assert groundup(*line, "--set", "lora.r=4", "--set", "lora.lora_alpha=8").code == 0


def test_loss_on_the_last_turn(model, chat_file, groundup, tmp_path):
    losses = {}
    for turns in ("all", "last"):
        setting = f"--set=loss_on={turns}"
        said = groundup("sft", "--model", model, "--data", chat_file, *BATCH, setting, "--out", turns)
        assert said.code == 0, said.err
        losses[turns] = read_json(tmp_path / turns / "sft" / "result.json")["before"]["eval_loss"]
    assert abs(losses["all"] - losses["last"]) > 1e-3


def test_a_rehearsal_keeps_nothing(chain_text, write, groundup, tmp_path):
    write("chain.yaml", chain_text)
    before = set(os.listdir(tempfile.gettempdir()))
    said = groundup("run", "chain.yaml", "--rehearse", "--only", "eval")
    assert said.code == 0, said.err
    assert "The rehearsal went through: sft, dpo, merge, eval" in said.out
    assert "2/2 steps" in said.out
    assert not (tmp_path / "runs").exists()
    assert not {name for name in set(os.listdir(tempfile.gettempdir())) - before if "rehearsal" in name}


def test_a_rehearsal_lists_what_would_fail_late(chain_text, base_model, chat_file, write, groundup, tmp_path):
    """A stage in the middle that cannot work, and another one; what reads nothing of them is still tried."""
    extra = f"""  late:
    kind: sft
    from: {base_model}
    data: {chat_file}
    dtype: float32
  short:
    kind: sft
    from: merge
    data: {chat_file}
    max_length: 8
  after:
    kind: merge
    from: short
"""
    write("chain.yaml", chain_text + extra)
    before = set(os.listdir(tempfile.gettempdir()))
    said = groundup("run", "chain.yaml", "--rehearse")
    said.refused(
        "2 problem(s)", "late: The model has no chat template.", "short: no rows are left", "yet: after"
    )
    assert "[4/7] eval" in said.out
    assert not (tmp_path / "runs").exists()
    assert not {name for name in set(os.listdir(tempfile.gettempdir())) - before if "rehearsal" in name}


def test_a_rehearsal_tries_the_longest_rows(model, conversation, write, groundup):
    """One row in many is longer than the model's context: found in seconds, not when its turn comes."""
    rows = [conversation(i) for i in range(20)]
    rows.append({"prompt": "Sing.", "completion": "la " * 300})
    file = write("rows.jsonl", rows)
    said = groundup("sft", "--model", model, "--data", file, *BATCH, "--rehearse")
    said.refused("context ends at 160", "max_length")


def test_held_out_rows_are_never_trained_on(model, conversation, write, groundup, tmp_path):
    """eval_data that shares prompts with data; copies in data."""
    rows = [conversation(i) for i in range(10)]
    data = write("data.jsonl", [*rows, rows[9]])
    heldout = write("heldout.jsonl", rows[:3])
    said = groundup(
        "sft", "--model", model, "--data", data, "--eval-data", heldout, *FAST, "--set=batch_size=2"
    )
    assert said.code == 0, said.err
    stage = Run.open(tmp_path / "runs" / "sft-data", create=False).stage("sft")
    result = read_json(stage.result)["rows"]
    assert result["filtered"] == {"its prompt is held out": 3} and result["deduplicated"] == 1
    assert read_jsonl(stage.data / "heldout.jsonl") == rows[:3]


def test_out_makes_parents(model, chat_file, groundup, tmp_path):
    deep = Path("a/b/c")
    assert groundup("sft", "--model", model, "--data", chat_file, *BATCH, "--out", deep).code == 0
    assert (tmp_path / deep / "report.html").exists()
