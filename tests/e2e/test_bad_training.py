"""Input that a training stage cannot use: refused with a fix, or quarantined and counted; never a traceback."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

FAST = [
    *("--set=max_steps=2", "--set=dtype=float32", "--set=sample_count=0"),
    *("--set=batch_size=4", "--set=holdout=0.3"),
]


@pytest.fixture
def copy_of_model(model, tmp_path):
    """To be broken."""
    return shutil.copytree(model, tmp_path / "broken")


def change_weights(folder, change, name="model.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


# Rows


def test_pairs_whose_prompts_differ(model, pair, write, groundup, tmp_path):
    """Too many end the run; allowed, each is listed and counted, and none is trained on."""

    def asked(question, answer):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    bad = [{"chosen": asked(f"One {i}?", "yes"), "rejected": asked(f"Two {i}?", "no")} for i in range(3)]
    file = write("rows.jsonl", [*(pair(i) for i in range(9)), *bad, *(pair(i) for i in range(9, 18))])
    line = ["dpo", "--model", model, "--data", file, *FAST, "--out", "run"]
    groundup(*line).refused(f"{file}:10", "3 of 21 rows", "prompts of chosen and rejected differ")
    assert groundup(*line, "--set", "data.max_bad_rows=0.2").code == 0
    stage = Run(tmp_path / "run").stage("dpo")
    listed = read_jsonl(stage.quarantine)
    assert [one["line"] for one in listed] == [10, 11, 12]
    assert all("prompts of chosen and rejected differ" in one["reason"] for one in listed)
    counted = read_json(stage.result)["rows"]
    assert (counted["in"], counted["kept"]) == (21, 18)
    assert counted["quarantined"] == {"the prompts of chosen and rejected differ": 3}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "completion": " \n "},
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]},
    ],
    ids=["white space", "nothing", "nobody answers"],
)
def test_rows_that_the_loss_would_not_see(model, conversation, row, write, groundup, tmp_path):
    file = write("rows.jsonl", [*(conversation(i) for i in range(12)), row])
    line = ["sft", "--model", model, "--data", file, *FAST, "--out", "run"]
    groundup(*line).refused(f"{file}:13", "1 of 13 rows", "answer")
    assert groundup(*line, "--set", "data.max_bad_rows=0.2").code == 0
    stage = Run(tmp_path / "run").stage("sft")
    assert [one["line"] for one in read_jsonl(stage.quarantine)] == [13]
    assert read_json(stage.result)["rows"]["kept"] == 12


def test_a_few_rows_too_long(model, conversation, write, groundup, tmp_path):
    """They are set aside and counted, not cut: an answer without its end teaches not to stop."""
    long = {"prompt": "Sing.", "completion": "la " * 60}
    file = write("rows.jsonl", [*(conversation(i) for i in range(12)), long])
    line = ["sft", "--model", model, "--data", file, *FAST, "--out", "run"]
    line += ["--set", "max_length=100"]
    groundup(*line).refused(f"{file}:13", "longer than 100 tokens", "raise max_length")
    assert groundup(*line, "--set", "data.max_bad_rows=0.1").code == 0
    (aside,) = read_jsonl(Run(tmp_path / "run").stage("sft").quarantine)
    assert (aside["line"], aside["reason"]) == (13, "longer than 100 tokens")
    counted = read_json(Run(tmp_path / "run").stage("sft").result)["rows"]
    assert counted["kept"] == 12 and counted["quarantined"] == {"longer than 100 tokens": 1}


def test_an_answer_that_begins_the_text(model, write, groundup, tmp_path):
    """No header, no question: the first token has nothing that could predict it. The others are learned."""
    bare = write("bare.jinja", "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}")
    rows = [{"messages": [{"role": "assistant", "content": f"Word number {i}."}]} for i in range(12)]
    line = ["sft", "--model", model, "--data", write("rows.jsonl", rows), *FAST, "--out", "run"]
    said = groundup(*line, "--set", f"chat.chat_template={bare}")
    assert said.code == 0, said.err
    assert read_json(Run(tmp_path / "run").stage("sft").result)["rows"]["kept"] == 12


# Models


@pytest.mark.parametrize(
    ("target", "near"), [("q_prj", "q_proj"), ("layers.0.mlp.upproj", "up_proj"), ("lm_head", "all-linear")]
)
def test_a_lora_target_that_names_nothing(model, chat_file, groundup, target, near):
    said = groundup(
        "sft", "--model", model, "--data", chat_file, *FAST, f"--set=lora.target_modules=[{target}]"
    )
    said.refused(target, near, "linear layers")


def test_a_tokenizer_with_more_tokens_than_the_embedding(copy_of_model, chat_file, groundup):
    """Before it trains, however rare the tokens are."""
    tokenizer = AutoTokenizer.from_pretrained(copy_of_model)
    tokenizer.add_tokens(["<never-seen>"])
    tokenizer.save_pretrained(copy_of_model)
    for line in (["sft", "--model", copy_of_model, "--data", chat_file, *FAST], ["eval", copy_of_model]):
        said = groundup(*line, *(["--data", chat_file] if line[0] == "eval" else []))
        said.refused(f"{len(tokenizer)} tokens", "embedding")


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["sft", "eval"])
def test_a_weight_that_is_no_number(copy_of_model, chat_file, groundup, kind, broken):
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(copy_of_model, lambda tensors: tensors[name][3].fill_(broken))
    line = ["sft", "--model", copy_of_model, *FAST] if kind == "sft" else ["eval", copy_of_model]
    groundup(*line, "--data", chat_file).refused(name, "broken", "NaN" if math.isnan(broken) else "infinity")


def test_a_learning_rate_that_breaks_the_model(model, chat_file, groundup, tmp_path):
    """One good step, then none: a model that says NaN is no success, however few steps there were."""
    line = ["sft", "--model", model, "--data", chat_file, *FAST, "--set=learning_rate=1e30", "--out", "run"]
    groundup(*line).refused("not a finite number", "lower learning_rate", "metrics.jsonl")
    assert not Run(tmp_path / "run").stage("sft").final.exists()
    assert groundup(*line, "--set=learning_rate=1e-3").code == 0


# Checkpoints


def unfinished(stage):
    """As if the run had been killed behind its last checkpoint."""
    for path in (stage.manifest, stage.result):
        path.unlink()
    shutil.rmtree(stage.final)


def damage(tensors):
    next(iter(tensors.values())).view(-1)[0] = torch.nan


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("how", ["NaN", "cut short"])
def test_a_damaged_checkpoint(model, chat_file, groundup, tmp_path, file, how):
    """Refused; and with it removed, as the message says, the run ends as it would have."""
    line = ["sft", "--model", model, "--data", chat_file, *FAST, "--set=save_steps=1", "--out", "run"]
    assert groundup(*line).code == 0
    stage = Run(tmp_path / "run").stage("sft")
    weights = (stage.final / "adapter_model.safetensors").read_bytes()
    unfinished(stage)
    last = stage.checkpoints()[-1]
    if how == "NaN":
        change_weights(last, damage, file)
    else:
        (last / file).write_bytes((last / file).read_bytes()[:100])
    groundup(*line).refused(
        last.name, file, "remove this checkpoint", *(["not finite"] if how == "NaN" else [])
    )
    shutil.rmtree(last)
    said = groundup(*line)
    assert said.code == 0 and "going on from checkpoint-000001" in said.out, said.err
    assert (stage.final / "adapter_model.safetensors").read_bytes() == weights
    assert json.loads(stage.result.read_text())["steps"] == 2
